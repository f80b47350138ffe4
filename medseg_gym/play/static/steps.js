// The list of steps, in words.

import { TOOL_NAMES, format, h } from "./dom.js";

export function listSteps(place, steps, now = null) {
  place.replaceChildren(
    ...steps.map((step, i) => {
      const onSlice = Number.isInteger(step.slice) ? `, slice ${step.slice + 1}` : "";
      const words = [h("span", { className: "tool-name" }, TOOL_NAMES[step.tool] + onSlice)];
      if (!step.valid) words.push(h("span", { className: "fault" }, step.error));
      if (step.dice !== undefined)
        words.push(h("span", { className: "number", title: `reward ${format(step.reward)}` }, format(step.dice)));
      return h("li", { className: now === i + 1 ? "now" : "" }, ...words);
    }),
  );
}

// Dice after every step, as a small chart: yours and a policy's.

import { TOOL_NAMES, format, s } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [260, 120, 26, 18, 8];

// lines: [{ name, kind: "you" | "other", start, steps: [{ dice, tool }], now? }]
export function drawCurve(place, lines, maxSteps, note = "") {
  const drawn = lines.filter((line) => line.start !== undefined);
  const x = (step) => LEFT + (step / Math.max(1, maxSteps)) * (WIDTH - LEFT - 8);
  const y = (dice) => TOP + (1 - dice) * (HEIGHT - TOP - BOTTOM);
  const parts = [];
  for (const value of [0, 0.5, 1]) {
    parts.push(s("line", { x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value), class: "grid" }));
    parts.push(s("text", { x: LEFT - 5, y: y(value) + 4, class: "tick", "text-anchor": "end" }, String(value)));
  }
  for (const step of new Set([0, Math.round(maxSteps / 2), maxSteps]))
    parts.push(s("text", { x: x(step), y: HEIGHT - 4, class: "tick", "text-anchor": "middle" }, String(step)));
  for (const line of drawn) {
    const points = [[0, line.start], ...line.steps.map((step, i) => [i + 1, step.dice])];
    parts.push(
      s("polyline", { class: `line ${line.kind}`, points: points.map(([n, d]) => `${x(n)},${y(d)}`).join(" ") }),
    );
    for (const [n, dice] of points) {
      const title = n ? `${line.name}, step ${n} (${TOOL_NAMES[line.steps[n - 1].tool]})` : `${line.name}, start`;
      const now = line.now === n ? " now" : "";
      parts.push(
        s("circle", { class: `dot ${line.kind}${now}`, cx: x(n), cy: y(dice), r: now ? 5 : 3 },
          s("title", {}, `${title}: Dice ${format(dice)}`)),
      );
    }
  }
  if (note) parts.push(s("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT / 2, class: "note", "text-anchor": "middle" }, note));
  const descriptions = drawn.map((line) => {
    const dice = [line.start, ...line.steps.map((step) => step.dice)];
    return `${line.name}: ${dice.map((d) => format(d, 2)).join(", ")}`;
  });
  const label = `Dice by step. ${descriptions.join(". ") || note || "Nothing yet"}`;
  place.replaceChildren(s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...parts));
}

// The leader board: people and policies on the same cases.

import { get, post } from "./api.js";
import { $, format, h } from "./dom.js";

const interval = (pair) => (pair ? ` [${format(pair[0])}, ${format(pair[1])}]` : "");
const signed = (value) => `${value < 0 ? "−" : "+"}${format(Math.abs(value))}`;

const SORTS = ["images", "volumes"]; // are never mixed: a mean over both would mean nothing
const MAX_FAILED = 3; // a policy stops after so many failed cases

export class Board {
  constructor(who) {
    this.who = who; // () => ({ player, exam })
    this.asked = 0; // how often a board was asked for: an answer that comes late shows nothing
    $("board-place").addEventListener("change", () => {
      this.choosePolicies();
      this.draw();
    });
    $("catch-up").addEventListener("click", () => this.catchUp());
  }

  setUp(setup) {
    const chosen = $("board-place").value;
    this.sorts = {};
    const groups = SORTS.map((sort) => {
      const places = setup[sort].places.filter((p) => !p.own);
      for (const one of [{ name: sort }, ...places]) this.sorts[one.name] = sort;
      return h("optgroup", { label: sort },
        h("option", { value: sort }, `all ${sort}`),
        ...places.map((p) => h("option", { value: p.name }, p.title)));
    });
    $("board-place").replaceChildren(...groups);
    if (chosen in this.sorts) $("board-place").value = chosen;
    this.setup = setup;
    this.choosePolicies();
  }

  get sort() {
    return this.sorts[$("board-place").value];
  }

  // The one place that was chosen, or null for all of a sort.
  get place() {
    const { value } = $("board-place");
    return SORTS.includes(value) ? null : value;
  }

  choosePolicies() {
    const { policies } = this.setup[this.sort];
    if (this.policies === policies) return;
    this.policies = policies;
    $("board-policy").replaceChildren(...policies.map((name) => h("option", { value: name }, name)));
    $("catch-up").disabled = !policies.length;
  }

  async draw() {
    const who = this.who();
    const { sort, place } = this;
    const asked = ++this.asked;
    const board = await get("board", { ...who, place, volumes: sort === "volumes" });
    if (asked !== this.asked) return;
    const name = who.player.trim() || "anonymous";
    const exam = who.exam ? " in exams" : "";
    const noun = sort === "volumes" ? "volume" : "case";
    const cases = board.cases === 1 ? `the ${noun}` : `the ${board.cases} ${noun}s`;
    $("board-about").textContent = board.compared
      ? `Everybody on ${cases} that ${name} has finished${exam}, with ${this.setup.backbone} and ${this.setup[sort].max_steps} steps.`
      : `${name} has finished no ${noun} here${exam}: each row counts its own cases, so rows do not compare.`;
    if (board.left_out) {
      const which = board.damaged.length ? `, among them: ${board.damaged.join(", ")}` : "";
      $("board-about").textContent += ` Stores that are damaged and left out: ${board.left_out}${which}.`;
    }
    const heads = ["Player", sort === "volumes" ? "Volumes" : "Cases", sort === "volumes" ? "3D Dice" : "Dice"];
    if (board.compared) heads.push(`${name}, same cases`, "Difference");
    const rows = board.rows.map((row) => this.row(row, board.compared));
    $("board-table").replaceChildren(
      h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...rows));
    if (!rows.length)
      $("board-table").replaceChildren(h("tbody", {}, h("tr", {}, h("td", {}, "No finished episodes yet."))));
  }

  row(row, compared) {
    const notes = [];
    if (row.person) notes.push(row.exam ? "exam" : "sees Dice");
    if (row.oracle) notes.push("oracle");
    if (row.synthetic) notes.push("synthetic");
    const player = h("th", { scope: "row" }, row.me ? h("b", {}, row.player) : row.player);
    if (notes.length) player.append(h("span", { className: "muted" }, ` ${notes.join(", ")}`));
    const cells = [
      h("td", { className: "number" }, String(row.n)),
      h("td", { className: "number" }, format(row.dice) + interval(row.interval)),
    ];
    if (compared && row.me) cells.push(h("td", {}, ""), h("td", {}, ""));
    else if (compared) {
      cells.push(h("td", { className: "number" }, format(row.mine)));
      cells.push(h("td", { className: "number" }, signed(row.difference) + interval(row.difference_interval)));
    }
    return h("tr", { className: row.me ? "me" : "" }, player, ...cells);
  }

  // Let a policy play every case that you have finished; what it has played already is not kept twice.
  // One that fails (a model's server may refuse a case) does not keep it from the others.
  async catchUp() {
    const note = $("catch-up-note");
    const policy = $("board-policy").value;
    $("catch-up").disabled = true;
    try {
      const { sort, place: chosen } = this;
      const all = Object.keys(this.sorts).filter((name) => this.sorts[name] === sort && name !== sort);
      let done = 0;
      let failed = 0;
      let reason = "";
      for (const place of chosen ? [chosen] : all) {
        const { keys } = await get("played", { place, ...this.who() });
        for (const key of keys) {
          note.textContent = `${++done} …`;
          let shown = await post("watch", { policy, place, key });
          while (!shown.done) {
            await new Promise((go) => setTimeout(go, 100));
            shown = await get(`watch/${shown.watch}`, { since: 1e6 });
          }
          if (shown.error) {
            failed += 1;
            reason = shown.error;
            if (failed >= MAX_FAILED) throw new Error(`${failed} cases failed; the last: ${reason}`);
          }
        }
      }
      await this.draw(); // the note speaks of rows that are shown
      const played = done - failed;
      note.textContent = done ? `${played} ${played === 1 ? "case" : "cases"} played` : "You have finished no case here yet.";
      if (failed) note.textContent += `, ${failed} failed: ${reason}`;
    } catch (error) {
      note.textContent = error.message;
    } finally {
      $("catch-up").disabled = false;
    }
  }
}

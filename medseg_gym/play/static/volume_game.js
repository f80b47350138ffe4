// A game on a volume: what a person does goes to the service one step after another.

import { Refused, drop, get, post } from "./api.js";
import { showBanner } from "./banner.js";

const KEPT = "medseg.volume";

export class VolumeGame extends EventTarget {
  constructor() {
    super();
    this.state = null; // the last answer of the service, with all steps
    this.queue = Promise.resolve();
    this.waiting = [];
    this.lost = false;
    this.turn = 0;
  }

  get over() {
    return !this.state || this.state.done;
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  async begin(picked, exam) {
    const turn = ++this.turn;
    const before = this.state;
    const begun = await post("volumes/games", { ...picked, exam });
    if (turn !== this.turn) {
      drop(`volumes/games/${begun.game}`).catch(() => {});
      return;
    }
    if (before) drop(`volumes/games/${before.game}`).catch(() => {}); // gone already, or it ends by itself
    this.enter(begun);
  }

  // After the page was loaded anew: go on where this tab was.
  async resume() {
    let id = null;
    try {
      id = sessionStorage.getItem(KEPT);
      if (!id) return false;
      this.enter(await get(`volumes/games/${id}`));
      return true;
    } catch {
      return false;
    }
  }

  enter(state) {
    this.lost = false;
    this.state = state;
    this.waiting = [];
    try {
      sessionStorage.setItem(KEPT, state.game);
    } catch {
      // forgotten with the page
    }
    this.tell("begin");
    this.tell("change", {});
  }

  // Steps go one after another; each says what it has seen, so that two tabs cannot mix.
  step(tool, slice = null, at = []) {
    if (this.over || this.lost) return this.queue;
    const { game } = this.state;
    this.waiting.push(tool);
    this.tell("busy");
    this.queue = this.queue.then(async () => {
      try {
        if (this.state.game !== game || this.over || this.lost) return;
        const body = { tool, at, expected: this.state.taken };
        if (slice !== null) body.slice = slice;
        this.take(await post(`volumes/games/${game}/steps`, body), game);
      } catch (error) {
        await this.fail(error, game);
      } finally {
        this.waiting.shift();
        this.tell("busy");
      }
    });
    return this.queue;
  }

  take(answer, game) {
    if (this.state.game !== game) return;
    const steps = this.state.steps.slice(0, answer.taken - answer.steps.length);
    this.state = { ...answer, steps: [...steps, ...answer.steps] };
    this.tell("change", { step: answer.steps.at(-1) });
  }

  async fail(error, game) {
    if (error instanceof Refused && error.status === 409) {
      try {
        this.take(await get(`volumes/games/${game}`), game);
      } catch (again) {
        error = again;
      }
    }
    if (error instanceof Refused && error.status === 404) {
      this.lost = true;
      this.tell("busy");
      showBanner(error.message, [["Open again", () => this.tell("again")]]);
      return;
    }
    showBanner(error.message);
  }
}

// A game: what a person does goes to the service one step after another, and comes back as masks.

import { Refused, Silent, answers, drop, get, patch, post } from "./api.js";
import { hideBanner, showBanner } from "./banner.js";

export class Game extends EventTarget {
  // kept: under which name this tab remembers its game; verdict(): what goes with the step that ends it
  constructor(kept, verdict) {
    super();
    this.kept = kept;
    this.verdict = verdict;
    this.state = null; // the last answer of the service, with all steps
    this.queue = Promise.resolve();
    this.waiting = []; // tools of the steps on their way
    this.beginning = 0;
    this.lost = false;
    this.turn = 0;
  }

  get over() {
    return !this.state || this.state.done;
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  // For subclasses: what has to be there before the game is shown, and what each answer brings.
  async prepare() {}
  opened() {}
  async show() {}

  // Begin on a case. A game without steps is given up quietly; one with steps stays recorded.
  async begin(picked, who) {
    const turn = ++this.turn;
    const before = this.state;
    this.beginning++;
    this.tell("busy");
    try {
      const begun = await post("games", { ...picked, ...who });
      if (turn !== this.turn) {
        this.leave(begun.game); // somebody has picked another case meanwhile
        return false;
      }
      // One that is over stays, so that its mask can be downloaded until the service gives it up.
      if (before && !before.done) this.leave(before.game);
      await this.enter(begun);
      return turn === this.turn;
    } finally {
      this.beginning--;
      this.tell("busy");
    }
  }

  leave(id) {
    drop(`games/${id}`).catch(() => {}); // gone already, or it ends by itself
  }

  // After the page was loaded anew: go on where this tab was.
  async resume() {
    let id = null;
    try {
      id = sessionStorage.getItem(this.kept);
    } catch {
      return false;
    }
    if (!id) return false;
    try {
      await this.enter(await get(`games/${encodeURIComponent(id)}`));
      return true;
    } catch (error) {
      if (error instanceof Refused) return false;
      throw error;
    }
  }

  async enter(state) {
    const ready = await this.prepare(state);
    this.state = { ...state, steps: [] };
    this.lost = false;
    hideBanner();
    try {
      sessionStorage.setItem(this.kept, state.game);
    } catch {
      // then a reload begins anew
    }
    this.opened(ready);
    this.tell("begin");
    await this.take(state, false);
  }

  // Take over the answer of the service: new steps, the state now, and the truth once it is over.
  async take(state, acted) {
    if (state.game !== this.state.game) return; // another one was begun meanwhile
    const steps = [...this.state.steps.slice(0, state.taken - state.steps.length), ...state.steps];
    this.state = { ...this.state, ...state, mask: state.mask, steps };
    await this.show(state);
    if (state.done && state.exam && state.steps.length < state.taken) {
      // The scores of an exam come at the end: ask for all of them.
      const all = await get(`games/${state.game}`);
      this.state = { ...this.state, ...all };
    }
    this.tell("change", { step: acted ? this.state.steps.at(-1) : null });
  }

  // Steps and changes of the player go one after another; while another case is on its way, a step would
  // go to the one that is about to disappear.
  inTurn(tool, ask) {
    const { game } = this.state;
    if (tool) this.waiting.push(tool);
    this.tell("busy");
    this.queue = this.queue.then(async () => {
      try {
        if (this.state.game === game && !this.over && !this.lost) await ask(game);
      } catch (error) {
        await this.fail(error, game);
      } finally {
        if (tool) this.waiting.shift();
        this.tell("busy");
      }
    });
    return this.queue;
  }

  // Change the player or exam mode before the first step. It is queued as steps are: what is clicked or
  // dragged meanwhile, in the very movement that left the name's field, comes after it.
  rename(who) {
    return this.inTurn(null, async (game) => {
      const answer = await patch(`games/${game}`, who);
      this.state = { ...answer, steps: [] }; // without the Dice that an exam hides
      await this.take(answer, false);
    });
  }

  // Each step says what it has seen, so that two tabs cannot mix.
  step(tool, at = [], slice = null) {
    if (this.over || this.lost || this.beginning) return this.queue;
    const said = this.verdict();
    return this.inTurn(tool, async (game) => {
      const body = { tool, at, expected: this.state.steps.length, ...said };
      if (slice !== null) body.slice = slice;
      await this.take(await post(`games/${game}/steps`, body), true);
    });
  }

  async fail(error, game) {
    if (error instanceof Silent) return this.wait();
    if (error instanceof Refused && error.status === 409) {
      try {
        await this.take(await get(`games/${game}`), false);
        showBanner(error.message);
        return;
      } catch (again) {
        error = again;
      }
    }
    if (error instanceof Silent) return this.wait();
    if (error instanceof Refused && error.status === 404) return this.gone();
    showBanner(error.message);
  }

  // The service does not answer: say so, and ask until it does.
  async wait() {
    if (this.lost) return;
    this.lost = true;
    const kept = this.state?.recorded ?? 0;
    const what = kept === 1 ? "Your 1 step is recorded." : `Your ${kept} steps are recorded.`;
    showBanner(`The service does not answer. ${kept ? what : "Nothing was lost."} Trying again …`, []);
    this.tell("busy");
    while (!(await answers())) await new Promise((go) => setTimeout(go, 1000));
    this.lost = false;
    this.tell("busy");
    this.tell("back");
    try {
      const state = await get(`games/${this.state.game}`);
      await this.take(state, false);
      showBanner("The service answers again; this is how your game stands.");
    } catch (error) {
      await this.fail(error, this.state.game);
    }
  }

  gone() {
    const { state } = this;
    this.lost = true;
    this.tell("busy");
    const steps = state.steps.filter((step) => step.prompt);
    const kept = state.recorded;
    const what = kept === 1 ? "its 1 step is" : `its ${kept} steps are`;
    const actions = [["New game", () => this.tell("again")]];
    if (steps.length) actions.unshift(["Play my steps again", () => this.tell("again", steps)]);
    const saved = kept ? `; ${what} kept as an unfinished recording` : "";
    showBanner(`This game ended: the service was restarted, or the game was idle for too long${saved}.`, actions);
  }
}

export const coordinates = (prompt) => prompt.box ?? prompt.point ?? [];

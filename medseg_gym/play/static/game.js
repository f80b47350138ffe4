// A game: what a person does goes to the service one step after another, and comes back as masks.

import { Refused, Silent, answers, drop, get, patch, fetchImage, post } from "./api.js";
import { hideBanner, showBanner } from "./banner.js";
import { COLOURS, Mask, bitmapOf } from "./pixels.js";

const KEPT = "medseg.game";

export class Game extends EventTarget {
  constructor(viewer) {
    super();
    this.viewer = viewer;
    this.state = null; // the last answer of the service, with all steps
    this.queue = Promise.resolve();
    this.waiting = 0;
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
      id = sessionStorage.getItem(KEPT);
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
    const bitmap = await bitmapOf(await fetchImage(`games/${state.game}/image`));
    this.state = { ...state, steps: [] };
    this.lost = false;
    hideBanner();
    try {
      sessionStorage.setItem(KEPT, state.game);
    } catch {
      // then a reload begins anew
    }
    this.viewer.truth = null;
    this.viewer.setState({});
    this.viewer.setImage(bitmap);
    this.tell("begin");
    await this.take(state, false);
  }

  // Take over the answer of the service: new steps, the state now, and the truth once it is over.
  async take(state, acted) {
    const steps = [...this.state.steps.slice(0, state.recorded - state.steps.length), ...state.steps];
    this.state = { ...this.state, ...state, steps };
    const mask = await Mask.read(state.state.mask, COLOURS.mask);
    if (state.truth) this.viewer.truth = await Mask.read(state.truth, COLOURS.truth);
    this.viewer.setState({ mask, box: state.state.box, points: state.state.points });
    if (state.done && state.exam && state.steps.length < state.recorded) {
      // The scores of an exam come at the end: ask for all of them.
      const all = await get(`games/${state.game}`);
      this.state = { ...this.state, ...all };
    }
    this.tell("change", acted ? this.state.steps.at(-1) : null);
  }

  // Change the player or exam mode before the first step. It is queued as steps are: what is clicked or
  // dragged meanwhile, in the very movement that left the name's field, comes after it.
  rename(who) {
    const game = this.state.game;
    this.queue = this.queue.then(async () => {
      try {
        if (this.state.game !== game || this.over || this.lost) return;
        const answer = await patch(`games/${game}`, who);
        this.state = { ...answer, steps: [] }; // without the Dice that an exam hides
        await this.take(answer, false);
      } catch (error) {
        await this.fail(error, game);
      }
    });
    return this.queue;
  }

  // Steps go one after another; each says what it has seen, so that two tabs cannot mix.
  // While another case is on its way, a step would go to the one that is about to disappear.
  step(tool, at = [], accepted = null) {
    if (this.over || this.lost || this.beginning) return this.queue;
    const game = this.state.game;
    this.waiting++;
    this.tell("busy");
    this.queue = this.queue.then(async () => {
      try {
        if (this.state.game !== game || this.over || this.lost) return;
        const expected = this.state.steps.length;
        await this.take(await post(`games/${game}/steps`, { tool, at, expected, accepted }), true);
      } catch (error) {
        await this.fail(error, game);
      } finally {
        this.waiting--;
        this.tell("busy");
      }
    });
    return this.queue;
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

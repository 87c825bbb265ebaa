/**
 * One part of the playground at work: its buttons, its progress, its stage, and the engine that all parts share.
 *
 * A part says what to run; the runner loads what is missing, runs it, shows it, and says what went wrong.
 */

import { megabytes } from "./elements.js";

const PAUSE = 150; // milliseconds without a further change before the settings are run

export class Runner {
  #turn = 0; // counts runs and changes, so that what belongs to an earlier one is dropped
  #timer = 0;
  #loading = false;
  #pressed = false; // the press that started the loading may be the first of a double click

  /**
   * @param {HTMLElement} section holds elements with the data-part go, stop, progress and status
   * @param {{ engine: object, stage: object, networks: string[], label: string, request: () => object,
   *   explain: (why: string, retry?: () => void) => void, onpress?: () => void }} part `networks` are all that the part
   *   may run; `request` gives `{ networks, x, grid, tableau, what, done }`, where networks are `{ name, label }`;
   *   `onpress` comes before each run that the button starts
   */
  constructor(section, part) {
    Object.assign(this, part);
    const find = (name) => section.querySelector(`[data-part=${name}]`);
    [this.go, this.stop, this.progress, this.status] = ["go", "stop", "progress", "status"].map(find);
    this.go.addEventListener("click", ({ detail }) => {
      if (this.#loading || (this.#pressed && detail > 1)) {
        return;
      }
      this.#pressed = !this.#ready;
      this.onpress?.();
      this.start();
    });
    this.stop.addEventListener("click", () => this.engine.stop());
    this.engine.addEventListener("loaded", () => this.#name());
  }

  /** Show what a run would start from, and what the button does. */
  async prepare() {
    this.#reset();
    await this.#name();
  }

  /** The settings changed: show the new start, and run it if the networks are there. */
  changed() {
    clearTimeout(this.#timer);
    this.#reset();
    if (this.#ready) {
      this.#turn += 1;
      this.engine.stop();
      this.#rest();
      this.#timer = setTimeout(() => this.start(), PAUSE);
    }
  }

  /** Load what is missing, then run. */
  async start() {
    clearTimeout(this.#timer);
    if (this.#loading) {
      return;
    }
    let turn = this.#turn;
    try {
      await this.#load();
      this.#turn += 1;
      turn = this.#turn;
      await this.#run(turn);
    } catch (error) {
      this.#loading = false;
      if (turn === this.#turn) {
        this.#rest();
        this.stage.cut();
        this.explain(error.message, () => this.start());
      }
    }
  }

  get #ready() {
    return this.networks.every((name) => this.engine.loaded.has(name));
  }

  async #name() {
    const bytes = await this.engine.missingBytes(this.networks);
    const what = this.networks.length > 1 ? "networks" : "network";
    this.go.textContent = bytes > 0 ? `Load the ${what} (${megabytes(bytes)})` : this.label;
    if (bytes === 0 && this.#turn === 0 && !this.#loading) {
      this.status.textContent = ""; // another part has fetched them
    }
  }

  async #load() {
    if (this.#ready) {
      return;
    }
    this.#loading = true;
    this.#busy(`Fetching ${megabytes(await this.engine.missingBytes(this.networks))}, once.`);
    await this.engine.load(this.networks, (share) => {
      this.progress.value = share;
    });
    this.#loading = false;
  }

  async #run(turn) {
    const request = this.#reset();
    const networks = request.networks.map(({ name }) => name);
    const states = request.grid.length * networks.length;
    let told = 0;
    this.#busy("Running.");
    this.stop.hidden = false;
    const { stopped } = await this.engine.run({ ...request, networks }, (state) => {
      told += 1;
      this.progress.value = told / states;
      this.stage.push(state);
    });
    if (turn !== this.#turn) {
      return;
    }
    const reached = stopped ? this.stage.cut() : request.grid.length - 1;
    this.#rest();
    const how = reached ? "Stopped. The slider goes as far as it came." : "Stopped before the first step.";
    this.status.textContent = stopped ? how : request.done;
  }

  #reset() {
    const request = this.request();
    this.stage.reset(request);
    return request;
  }

  #busy(what) {
    this.progress.value = 0;
    this.progress.hidden = false;
    this.status.textContent = what;
  }

  #rest() {
    if (document.activeElement === this.stop) {
      this.go.focus(); // a hidden button cannot keep the keyboard's place
    }
    this.progress.hidden = true;
    this.stop.hidden = true;
    this.status.textContent = "";
  }
}

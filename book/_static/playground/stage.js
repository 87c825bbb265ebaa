/**
 * What the reader watches: a panel for each network, a slider over t, and the choice of what is shown.
 *
 * It records every state it is given, follows a run while it goes on, and shows any recorded moment afterwards. Colours
 * and arrow lengths share one scale over all networks and times of a run, so that they can be compared.
 */

import { choice, duration, element, wantsLessMotion } from "./elements.js";
import { PIXELS } from "./fields.js";
import { arrowScale, drawBatch, velocityScale } from "./panel.js";

const REPLAY = 2500; // milliseconds of a replay
const NOTES = {
  digits: "",
  arrows: "Arrows point to where ink is about to arrive.",
  velocity: "Red: ink arrives. Blue: ink leaves.",
};

export class Stage {
  #panels = new Map(); // network → { canvas, numbers, states }
  #view = "digits";
  #grid = [0, 1];
  #moment = 0;
  #following = true;
  #limit = 0;
  #reference = 0;
  #replaying = 0;

  /**
   * @param {HTMLElement} root where to build it
   * @param {{ row?: boolean }} options `row`: tiles in one row instead of a square
   */
  constructor(root, { row = false } = {}) {
    this.row = row;
    this.panels = element("div", { class: "playground-panels" });
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 1,
      value: 0,
      autocomplete: "off",
      "aria-label": "time t",
      oninput: () => {
        this.#following = false;
        this.#stopReplay();
        this.#show(Number(this.slider.value));
      },
    });
    this.time = element("output", {}, "t = 0.00");
    this.replay = element("button", { type: "button", onclick: () => this.#replay() }, "Replay");
    this.replay.hidden = wantsLessMotion();
    this.ticks = element("div", { class: "playground-ticks", "aria-hidden": "true" });
    const track = element("div", { class: "playground-track" }, this.slider, this.ticks);
    const names = [
      ["digits", "digits"],
      ["arrows", "with arrows"],
      ["velocity", "velocity"],
    ];
    const views = choice("Show", `view-${Stage.#count}`, names, this.#view, ({ target }) => {
      this.#view = target.value;
      this.#draw();
    });
    Stage.#count += 1;
    this.note = element("p", { class: "playground-note" });
    const line = element("div", { class: "playground-time" }, this.time, track, this.replay);
    const look = element("div", { class: "playground-views" }, views, this.note);
    root.replaceChildren(this.panels, line, ...(row ? [] : [look]));
    new ResizeObserver(() => this.#draw()).observe(this.panels);
  }

  static #count = 0;

  /**
   * Begin anew with the state that all networks start from.
   *
   * @param {{ networks: { name: string, label: string }[], x: Float32Array, grid: number[], what: string }} run x holds
   *   whole images, one after the other; `what` is what the reader sees, for the panels' descriptions
   */
  reset({ networks, x, grid, what }) {
    const batch = x.length / PIXELS;
    this.#stopReplay();
    this.#grid = grid;
    this.#following = true;
    this.#limit = 0;
    this.#reference = 0;
    this.what = what;
    this.columns = this.row ? batch : Math.round(Math.sqrt(batch));
    const start = { k: 0, t: grid[0], x, velocity: new Float32Array(x.length), nfe: 0, milliseconds: 0 };
    const kept = this.#panels;
    this.#panels = new Map(
      networks.map(({ name, label }) => [name, { ...(kept.get(name) ?? this.#panel(name)), label, states: [start] }]),
    );
    this.panels.replaceChildren(...[...this.#panels.values()].map(({ figure }) => figure));
    this.panels.dataset.count = this.#panels.size;
    for (const { caption, label, numbers } of this.#panels.values()) {
      caption.replaceChildren(label);
      numbers.textContent = "";
    }
    this.slider.max = grid.length - 1;
    this.slider.disabled = true; // until there is something to look back at
    this.replay.disabled = true;
    const end = grid.at(-1) - grid[0];
    this.ticks.replaceChildren(...grid.map((t) => element("i", { style: `left: ${(100 * (t - grid[0])) / end}%` })));
    this.#show(0);
  }

  /** Record a state of a run, and show it while the reader has not taken the slider. */
  push({ network, ...state }) {
    const panel = this.#panels.get(network);
    panel.states[state.k] = state;
    this.#limit = Math.max(this.#limit, velocityScale(state.velocity));
    this.#reference = Math.max(this.#reference, arrowScale(state.velocity));
    if (state.k > 0) {
      this.slider.disabled = false;
      this.replay.disabled = false;
      const step = duration(state.milliseconds / state.k);
      panel.numbers.textContent = `NFE ${state.nfe} · ${step} a step · ${duration(state.milliseconds)}`;
    }
    const everywhere = this.#reached();
    const last = everywhere === this.#grid.length - 1;
    if (this.#following && everywhere > this.#moment && (last || !wantsLessMotion())) {
      this.#show(everywhere);
    } else if (everywhere === 0) {
      this.#draw();
    }
  }

  /** A run that was stopped or failed: the slider ends where it ended. Returns the last step that all networks made. */
  cut() {
    const reached = this.#reached();
    this.slider.max = Math.max(1, reached);
    this.slider.disabled = reached === 0;
    this.replay.disabled = reached === 0;
    this.#show(Math.min(this.#moment, reached));
    return reached;
  }

  #reached() {
    return Math.min(...[...this.#panels.values()].map(({ states }) => states.length)) - 1;
  }

  /** What is recorded: `{ network: states }`. */
  get recorded() {
    return Object.fromEntries([...this.#panels].map(([name, { states }]) => [name, states]));
  }

  #panel(name) {
    const caption = element("figcaption", { "data-network": name });
    const canvas = element("canvas", { role: "img" });
    const numbers = element("p", { class: "playground-numbers" });
    return { figure: element("figure", {}, caption, canvas, numbers), caption, canvas, numbers };
  }

  #show(moment) {
    this.#moment = moment;
    this.slider.value = moment;
    const t = this.#grid[moment].toFixed(2);
    this.time.textContent = `t = ${t}`;
    this.slider.setAttribute("aria-valuetext", `t = ${t}, step ${moment} of ${this.#grid.length - 1}`);
    for (const [k, tick] of [...this.ticks.children].entries()) {
      tick.classList.toggle("now", k === moment);
    }
    this.#draw();
  }

  #draw() {
    const look = {
      columns: this.columns,
      view: this.#view,
      limit: this.#limit || 1,
      reference: this.#reference || 1,
    };
    for (const { canvas, label, states } of this.#panels.values()) {
      const state = states[Math.min(this.#moment, states.length - 1)];
      drawBatch(canvas, state, look);
      const seen = this.#view === "velocity" ? "velocity" : "state";
      canvas.setAttribute("aria-label", `${label}, ${seen} at t = ${state.t.toFixed(2)}: ${this.what}`);
    }
    const scale =
      this.#view === "velocity" && this.#limit
        ? ` Full colour: ${this.#limit.toFixed(1)} grey levels per unit of t; black to white is 2.`
        : "";
    this.note.textContent = NOTES[this.#view] + scale;
  }

  #replay() {
    this.#stopReplay();
    this.#following = false;
    const last = this.#reached();
    const begin = performance.now();
    const next = (now) => {
      const share = Math.min(1, (now - begin) / REPLAY);
      const moment = Math.round(share * last);
      if (moment !== this.#moment) {
        this.#show(moment);
      }
      this.#replaying = share < 1 ? requestAnimationFrame(next) : 0;
    };
    this.#replaying = requestAnimationFrame(next);
  }

  #stopReplay() {
    cancelAnimationFrame(this.#replaying);
  }
}

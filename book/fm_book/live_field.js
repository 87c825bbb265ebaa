/**
 * A learned velocity field in the plane: a click drops particles at t = 0, which flow to t = 1.
 *
 * The network is a chain of linear layers and pointwise functions of (x, y, t). `fm_book.live_field` writes this module
 * and those it imports into a notebook's output, with the weights, so that it runs wherever the output is shown.
 */

import { arrowPath } from "./arrow.js";
import { integrate, uniformGrid } from "./rungekutta.js";

const POINTWISE = {
  tanh: Math.tanh,
  relu: (z) => Math.max(0, z),
  silu: (z) => z / (1 + Math.exp(-z)),
};
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]; // Okabe and Ito's
const MESH = 15; // arrows along a side
const SECONDS = 3; // from t = 0 to t = 1
const RADIUS = 0.15; // of a group of particles, in units of the plane

/**
 * The velocity of a described network.
 *
 * @param {{ layers: object[] }} description as `fm_book.live_field.mlp_weights` writes it: each layer is
 *   `{ kind: "linear", inputs, outputs, weight, bias }` with base64 of little-endian float32, or `{ kind }` of a
 *   pointwise function
 * @returns {(points: Float32Array, t: number) => Float32Array} for points and velocities as x, y, x, y, …
 */
export function readNetwork({ layers }) {
  const read = layers.map((layer) =>
    layer.kind === "linear" ? { ...layer, weight: decode(layer.weight), bias: decode(layer.bias) } : layer,
  );
  for (const { kind } of read) {
    if (kind !== "linear" && !(kind in POINTWISE)) {
      throw new RangeError(`layer: expected one of linear, ${Object.keys(POINTWISE).join(", ")}, got ${kind}.`);
    }
  }
  return (points, t) => {
    const count = points.length / 2;
    let values = new Float32Array(3 * count);
    for (let i = 0; i < count; i += 1) {
      values.set([points[2 * i], points[2 * i + 1], t], 3 * i);
    }
    for (const layer of read) {
      values = layer.kind === "linear" ? linear(layer, values) : values.map(POINTWISE[layer.kind]);
    }
    return values;
  };
}

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

function linear({ inputs, outputs, weight, bias }, values) {
  const count = values.length / inputs;
  const out = new Float32Array(count * outputs);
  for (let i = 0; i < count; i += 1) {
    for (let j = 0; j < outputs; j += 1) {
      let sum = bias[j];
      for (let k = 0; k < inputs; k += 1) {
        sum += weight[j * inputs + k] * values[i * inputs + k];
      }
      out[i * outputs + j] = sum;
    }
  }
  return out;
}

/** The states of points from t = 0 to t = 1: `steps + 1` arrays, the first of them the start. */
export async function flow(velocity, start, steps, tableau) {
  const states = [];
  for await (const { x } of integrate(velocity, start, uniformGrid(steps), tableau)) {
    states.push(x);
  }
  return states;
}

/** Points spread evenly over a disc (Vogel 1979). */
export function disc(x, y, count) {
  const points = new Float32Array(2 * count);
  for (let i = 0; i < count; i += 1) {
    const radius = RADIUS * Math.sqrt(i / count);
    const angle = 2.39996 * i; // the golden angle
    points.set([x + radius * Math.cos(angle), y + radius * Math.sin(angle)], 2 * i);
  }
  return points;
}

/** Replace the content of an element, which holds the settings as JSON, by the field. */
export function mount(root) {
  const settings = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  return new Field(root, settings);
}

class Field {
  drops = []; // { color, states }
  time = 0;
  #frame = 0;
  #cross = null; // position of the keyboard's next drop

  constructor(root, settings) {
    Object.assign(this, settings);
    this.velocity = readNetwork(settings);
    const make = (name, text) => {
      const made = document.createElement(name);
      made.textContent = text;
      return made;
    };
    this.canvas = make("canvas", "");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.slider = make("input", "");
    Object.assign(this.slider, { type: "range", min: 0, max: this.steps, step: 1, value: 0 });
    this.slider.setAttribute("aria-label", "time t");
    this.output = make("output", "");
    const key = (text, action) => {
      const button = make("button", text);
      button.type = "button";
      button.addEventListener("click", action);
      return button;
    };
    const bar = make("div", "");
    bar.className = "fm-field-bar";
    bar.append(
      this.output,
      this.slider,
      key("play", () => this.play()),
      key("drop noise", () => this.drop(Float32Array.from(this.noise))),
      key("clear", () => this.clear()),
    );
    root.replaceChildren(this.canvas, bar);
    this.slider.addEventListener("input", () => {
      cancelAnimationFrame(this.#frame);
      this.show(Number(this.slider.value) / this.steps);
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      const box = this.canvas.getBoundingClientRect();
      const across = (event.clientX - box.left) / box.width;
      const down = (event.clientY - box.top) / box.height;
      this.drop(disc((2 * across - 1) * this.limit, (1 - 2 * down) * this.limit, this.count));
    });
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.show(this.time)).observe(this.canvas);
    root.field = this;
    this.show(0);
  }

  /** Start points at t = 0. */
  async drop(points) {
    const states = await flow(this.velocity, points, this.steps, this.tableau);
    this.drops.push({ color: COLORS[this.drops.length % COLORS.length], states });
    this.play();
  }

  clear() {
    cancelAnimationFrame(this.#frame);
    this.drops = [];
    this.#cross = null;
    this.show(0);
  }

  /** From t = 0 to t = 1; at once for readers who want less motion. */
  play() {
    cancelAnimationFrame(this.#frame);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.show(1);
      return;
    }
    const begin = performance.now();
    const next = (now) => {
      this.show(Math.min(1, Math.max(0, (now - begin) / (1000 * SECONDS))));
      if (this.time < 1) {
        this.#frame = requestAnimationFrame(next);
      }
    };
    this.#frame = requestAnimationFrame(next);
  }

  /** Draw time t: data, field, and the trajectories up to t. */
  show(t) {
    this.time = t;
    const k = Math.round(t * this.steps);
    this.slider.value = k;
    this.output.textContent = `t = ${t.toFixed(2)}`;
    this.slider.setAttribute("aria-valuetext", this.output.textContent);
    const fallen = this.drops.length ? ` ${this.drops.length} times particles were dropped.` : "";
    this.canvas.setAttribute("aria-label", `${this.alt}${fallen} Click, or press arrow keys and Enter, to drop some.`);
    const side = Math.max(1, Math.round(this.canvas.clientWidth * (window.devicePixelRatio || 1)));
    this.canvas.width = side;
    this.canvas.height = side;
    const pen = this.canvas.getContext("2d");
    const unit = side / (2 * this.limit);
    const position = (x, y) => [(x + this.limit) * unit, (this.limit - y) * unit];
    const dot = (x, y, radius) => {
      pen.beginPath();
      pen.arc(...position(x, y), radius * unit, 0, 2 * Math.PI);
      pen.fill();
    };
    pen.fillStyle = "#fbfbf8"; // the book's card, the same in both themes
    pen.fillRect(0, 0, side, side);
    pen.fillStyle = "rgb(34 38 43 / 22%)";
    for (let i = 0; i < this.data.length; i += 2) {
      dot(this.data[i], this.data[i + 1], 0.025);
    }
    this.#arrows(pen, position, unit, t);
    for (const { color, states } of this.drops) {
      pen.strokeStyle = color;
      pen.fillStyle = color;
      for (let i = 0; i < states[0].length; i += 2) {
        pen.globalAlpha = 0.35;
        pen.lineWidth = 0.015 * unit;
        pen.beginPath();
        for (const state of states.slice(0, k + 1)) {
          pen.lineTo(...position(state[i], state[i + 1]));
        }
        pen.stroke();
        pen.globalAlpha = 1;
        dot(states[k][i], states[k][i + 1], 0.045);
      }
    }
    if (this.drops.length === 0) {
      pen.fillStyle = "#22262b";
      pen.font = `${0.24 * unit}px sans-serif`;
      pen.textAlign = "center";
      pen.fillText("click anywhere: particles start there at t = 0", side / 2, side - 0.18 * unit, 0.96 * side);
    }
    if (this.#cross) {
      const [x, y] = position(...this.#cross);
      pen.fillStyle = "#22262b";
      pen.fillRect(x - 0.2 * unit, y - 1, 0.4 * unit, 2);
      pen.fillRect(x - 1, y - 0.2 * unit, 2, 0.4 * unit);
    }
  }

  /** The field on a mesh; the longest arrow at t spans a mesh width. */
  #arrows(pen, position, unit, t) {
    const width = (2 * this.limit) / MESH;
    const middle = (i) => (i + 0.5) * width - this.limit;
    const points = Float32Array.from({ length: 2 * MESH * MESH }, (_, p) => {
      const i = p >> 1;
      return middle(p % 2 ? Math.floor(i / MESH) : i % MESH);
    });
    const v = this.velocity(points, t);
    let longest = 1e-9;
    for (let p = 0; p < v.length; p += 2) {
      longest = Math.max(longest, Math.hypot(v[p], v[p + 1]));
    }
    pen.fillStyle = "rgb(34 38 43 / 60%)";
    for (let p = 0; p < v.length; p += 2) {
      pen.save();
      pen.translate(...position(points[p], points[p + 1]));
      pen.rotate(Math.atan2(-v[p + 1], v[p]));
      pen.scale(unit, unit);
      arrowPath(pen, (0.95 * width * Math.hypot(v[p], v[p + 1])) / longest, { head: 0.13, wing: 0.05, shaft: 0.012 });
      pen.fill();
      pen.restore();
    }
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const [x, y] = this.#cross ?? [0, 0];
    if (event.key in moves) {
      const keep = (value) => Math.min(this.limit, Math.max(-this.limit, value));
      const [dx, dy] = moves[event.key];
      this.#cross = [keep(x + 0.25 * dx), keep(y + 0.25 * dy)];
      this.show(this.time);
    } else if (event.key === "Enter" || event.key === " ") {
      this.drop(disc(x, y, this.count));
    } else {
      return;
    }
    event.preventDefault();
  }
}

/**
 * The parts of the playground: `digits` generates digits with every setting, `drawing` completes what the reader draws,
 * `first` is one button.
 */

import { readAddress, writeAddress } from "./address.js";
import { choice, element } from "./elements.js";
import { Engine } from "./engine.js";
import { mix, PIXELS } from "./fields.js";
import { normals } from "./noise.js";
import { Pad, SAMPLES, sample } from "./pad.js";
import { interpolate, pacedGrid, uniformGrid } from "./rungekutta.js";
import { Runner } from "./runner.js";
import { Stage } from "./stage.js";

const SOLVERS = { euler: "Euler", heun: "Heun", rk4: "RK4" };
const SPACINGS = {
  linear: "even",
  quadratic: "finer near the noise",
  reverse_logarithmic: "much finer near the noise",
  inverse_quadratic: "finer near the digit",
  logarithmic: "much finer near the digit",
};
const DIGITS = { 1: "One digit", 4: "Four digits", 9: "Nine digits" };
const SEEDS = 10_000;
const FIRST_SEED = 0; // not selected
const MOST_STEPS = 64;

const mounts = { digits: mountDigits, drawing: mountDrawing, first: mountFirst };

/**
 * Start every part of a page.
 *
 * @param {Iterable<HTMLElement>} sections elements with `data-playground`
 * @param {URL} manifest address of playground.json
 * @param {(section: HTMLElement, why: string, retry?: () => void) => void} explain shows why a part does not run
 */
export async function mount(sections, manifest, explain) {
  const engine = new Engine(manifest);
  const { networks, tableaux, pacings } = await engine.files();
  const known = Object.entries(networks).map(([name, { label }]) => ({ name, label }));
  for (const section of sections) {
    const part = (name) => section.querySelector(`[data-part=${name}]`);
    const live = part("live");
    live.hidden = false;
    const say = (why, retry) => explain(section, why, retry);
    await mounts[section.dataset.playground]({ section, part, engine, known, tableaux, pacings, explain: say });
  }
}

async function mountDigits({ section, part, engine, known, tableaux, pacings, explain }) {
  const stage = new Stage(part("stage"));
  const form = part("settings");
  const both = known.map(({ name }) => name).join(" ");
  const radios = (legend, name, choices, chosen) => choice(legend, name, choices, chosen, () => changed());
  const steps = element("input", {
    type: "range",
    name: "steps",
    min: 1,
    max: MOST_STEPS,
    value: 20,
    autocomplete: "off",
  });
  const nfe = element("output");
  const spacing = element(
    "select",
    { name: "spacing", autocomplete: "off", onchange: () => changed() },
    ...Object.entries(SPACINGS).map(([value, label]) => element("option", { value }, label)),
  );
  const seed = element("input", {
    type: "number",
    name: "seed",
    min: 0,
    max: SEEDS - 1,
    step: 1,
    value: FIRST_SEED,
    autocomplete: "off",
    onchange: () => {
      const typed = seed.value;
      noise = wholeNumber(typed, SEEDS - 1) ?? noise;
      seed.value = noise;
      note.textContent = typed === String(noise) ? "" : `Whole numbers from 0 to ${SEEDS - 1}: took ${noise}.`;
      changed();
    },
  });
  const note = element("small", { role: "status" });
  let noise = FIRST_SEED;
  form.replaceChildren(
    radios(
      "Networks",
      "networks",
      [[both, "both"], ...known.map(({ name, label }) => [name, label.split(" ")[0]])],
      both,
    ),
    radios(
      "Digits",
      "digits",
      Object.keys(DIGITS).map((n) => [n, n]),
      "4",
    ),
    radios("Solver", "method", Object.entries(SOLVERS), "euler"),
    element("label", { class: "playground-wide" }, element("span", {}, "Steps"), steps, nfe),
    element("label", {}, element("span", {}, "Steps in time"), spacing),
    element("label", {}, element("span", {}, "Noise number"), seed),
    note,
  );
  const allowed = {
    networks: [both, ...known.map(({ name }) => name)],
    digits: Object.keys(DIGITS),
    method: Object.keys(SOLVERS),
    spacing: Object.keys(SPACINGS),
    steps: Array.from({ length: MOST_STEPS }, (_, k) => String(k + 1)),
    seed: Array.from({ length: SEEDS }, (_, k) => String(k)),
  };
  const usual = readAddress(form, allowed);
  noise = Number(seed.value);
  const changed = () => {
    writeAddress(form, usual);
    runner.changed();
  };
  form.addEventListener("submit", (event) => event.preventDefault());

  const settings = () => {
    const chosen = Object.fromEntries(new FormData(form));
    return {
      ...chosen,
      digits: Number(chosen.digits),
      steps: Number(chosen.steps),
      networks: chosen.networks.split(" "),
    };
  };
  const count = () => {
    const { steps, method } = settings();
    nfe.textContent = `${steps} (NFE ${steps * tableaux[method].b.length})`;
  };
  form.addEventListener("input", count);
  steps.addEventListener("change", () => changed());

  const request = () => {
    const chosen = settings();
    const networks = known.filter(({ name }) => chosen.networks.includes(name));
    const evaluations = chosen.steps * tableaux[chosen.method].b.length;
    return {
      networks,
      x: normals(chosen.digits * PIXELS, noise),
      grid: pacedGrid(chosen.steps, interpolate(pacings[chosen.spacing])),
      tableau: tableaux[chosen.method],
      what: `${DIGITS[chosen.digits].toLowerCase()} from noise number ${noise}`,
      done:
        `${DIGITS[chosen.digits]}, ${SOLVERS[chosen.method]}, NFE ${evaluations}` +
        (networks.length > 1 ? ", the same noise and times for both networks." : "."),
    };
  };
  const names = known.map(({ name }) => name);
  let drawn = false;
  const onpress = () => {
    if (drawn) {
      noise = Math.floor(Math.random() * SEEDS);
      seed.value = noise;
      note.textContent = "";
      writeAddress(form, usual);
    }
    drawn = true;
  };
  const label = "New noise, new digits";
  const runner = new Runner(section, { engine, stage, explain, request, onpress, networks: names, label });
  count();
  await runner.prepare();
}

async function mountDrawing({ section, part, engine, known, tableaux, explain }) {
  const stage = new Stage(part("stage"));
  const start = part("start");
  const said = part("start-value");
  let noise = FIRST_SEED;
  const moment = () => Number(start.value) / 100;
  const request = () => ({
    networks: known,
    x: mix(normals(4 * PIXELS, noise), pad.image, moment()),
    grid: uniformGrid(20, moment(), 1),
    tableau: tableaux.euler,
    what: "four tries at finishing the drawing",
    done: `From t₀ = ${moment().toFixed(2)}: Euler, NFE 20, four noises, the same for both networks.`,
  });
  const names = known.map(({ name }) => name);
  const runner = new Runner(section, {
    engine,
    stage,
    explain,
    request,
    networks: names,
    label: "Let the flow finish",
  });
  let ready = false;
  const touched = () => ready && runner.changed();
  const pad = new Pad(part("pad"), { onchange: touched });
  pad.show(sample("hook"));
  const say = () => {
    said.textContent = `t₀ = ${moment().toFixed(2)}`;
  };
  start.addEventListener("input", () => {
    say();
    touched();
  });
  part("samples").append(
    ...Object.keys(SAMPLES).map((name) =>
      element("button", { type: "button", onclick: () => pad.show(sample(name)) }, name),
    ),
  );
  part("clear").addEventListener("click", () => pad.clear());
  part("renew").addEventListener("click", () => {
    noise += 1;
    touched();
  });
  say();
  ready = true;
  await runner.prepare();
}

async function mountFirst({ section, part, engine, known, tableaux, explain }) {
  const stage = new Stage(part("stage"), { row: true });
  const networks = known.filter(({ name }) => name === "residual");
  let noise = FIRST_SEED;
  let drawn = false;
  const request = () => ({
    networks,
    x: normals(4 * PIXELS, noise),
    grid: uniformGrid(20),
    tableau: tableaux.euler,
    what: "four digits in a row",
    done: "Four digits that nobody wrote: 20 Euler steps, NFE 20.",
  });
  const names = networks.map(({ name }) => name);
  const onpress = () => {
    noise += drawn ? 1 : 0;
    drawn = true;
  };
  const label = "Four new digits";
  const runner = new Runner(section, { engine, stage, explain, request, onpress, networks: names, label });
  await runner.prepare();
}

/** The whole number from 0 to `most` nearest to what was typed; null for what is no number. */
function wholeNumber(typed, most) {
  const number = typed.trim() === "" ? Number.NaN : Math.round(Number(typed));
  return Number.isNaN(number) ? null : Math.min(most, Math.max(0, number));
}

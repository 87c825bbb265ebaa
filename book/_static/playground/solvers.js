/**
 * Turn a velocity field into states: Runge-Kutta tableaux as data, run by one loop.
 *
 * The same tables, grids and counting as `fm_core.solvers`, with one difference: the velocity may be a promise, and
 * the loop hands out each state as soon as it is known, so that a page can draw it and a reader can stop it.
 */

/** Explicit Runge-Kutta methods: stage i looks at `c[i]` of the step, from the slopes weighted by `a[i]`. */
export const TABLEAUX = {
  euler: { a: [[]], b: [1], c: [0] },
  heun: { a: [[], [1]], b: [1 / 2, 1 / 2], c: [0, 1] },
  rk4: { a: [[], [1 / 2], [0, 1 / 2], [0, 0, 1]], b: [1 / 6, 1 / 3, 1 / 3, 1 / 6], c: [0, 1 / 2, 1 / 2, 1] },
};

/**
 * Equally spaced times from `start` to `end`, both met exactly.
 *
 * @param {number} steps number of steps, at least 1
 * @returns {number[]} `steps + 1` times
 */
export function uniformGrid(steps, start = 0, end = 1) {
  return pacedGrid(steps, (s) => s, start, end);
}

/**
 * Times spaced by a pacing function: `t_k = start + (end - start) p(k / steps)`.
 *
 * @param {number} steps number of steps, at least 1
 * @param {(s: number) => number} pacing strictly rising from p(0) = 0 to p(1) = 1
 * @returns {number[]} `steps + 1` times
 */
export function pacedGrid(steps, pacing, start = 0, end = 1) {
  if (!Number.isInteger(steps) || steps < 1) {
    throw new RangeError(`steps=${steps}: give a whole number of at least 1.`);
  }
  if (start === end) {
    throw new RangeError(`start=${start}, end=${end}: give two different times, for example 0 and 1.`);
  }
  const grid = Array.from({ length: steps + 1 }, (_, k) => start + (end - start) * pacing(k / steps));
  grid[0] = start;
  grid[steps] = end;
  if (grid.some((t, k) => k > 0 && !((t - grid[k - 1]) * (end - start) > 0))) {
    throw new RangeError("pacing must rise strictly from 0 to 1, for example (s) => s * s.");
  }
  return grid;
}

/**
 * Carry `x` along a velocity field, one state at a time.
 *
 * Yields `{ k, t, x, velocity, nfe }` for each time of the grid: the state, the velocity there, and the evaluations
 * that the state took. The velocity at the last state is an evaluation more, which `nfe` leaves out.
 *
 * @param {(x: Float32Array, t: number) => Float32Array | Promise<Float32Array>} velocity must not change its input
 * @param {Float32Array} x state at `grid[0]`; left as it is
 * @param {number[]} grid strictly monotone times
 * @param {string} method a name in TABLEAUX
 */
export async function* integrate(velocity, x, grid, method = "euler") {
  const tableau = TABLEAUX[method];
  if (!tableau) {
    throw new RangeError(`method=${method} is unknown; choose one of ${Object.keys(TABLEAUX).join(", ")}.`);
  }
  const { a, b, c } = tableau;
  const steps = grid.length - 1;
  let slope = await velocity(x, grid[0]);
  yield { k: 0, t: grid[0], x, velocity: slope, nfe: 0 };
  for (let k = 0; k < steps; k += 1) {
    const h = grid[k + 1] - grid[k];
    const slopes = [slope];
    for (let i = 1; i < b.length; i += 1) {
      const stage = combine(x, slopes, a[i], h);
      slopes.push(await velocity(stage, c[i] === 1 ? grid[k + 1] : grid[k] + c[i] * h));
    }
    x = combine(x, slopes, b, h);
    slope = await velocity(x, grid[k + 1]);
    yield { k: k + 1, t: grid[k + 1], x, velocity: slope, nfe: (k + 1) * b.length };
  }
}

/** `x + h Σ weights_j slopes_j`, added in double precision and rounded once. */
function combine(x, slopes, weights, h) {
  const out = new Float32Array(x.length);
  for (let p = 0; p < x.length; p += 1) {
    let sum = 0;
    for (let j = 0; j < weights.length; j += 1) {
      sum += weights[j] * slopes[j][p];
    }
    out[p] = x[p] + h * sum;
  }
  return out;
}

/**
 * Explicit Runge-Kutta methods and their time grids; the live field and the playground both use this module.
 *
 * Tableaux and pacings come from Python: `fm_core.TABLEAUX` and samples of `fm_core.pacing.PACINGS`.
 */

/**
 * Carry `x` along a velocity field, one state at a time.
 *
 * Yields `{ k, t, x, velocity, nfe }` for each time of the grid: the state, the velocity there, and the evaluations
 * that the state took. The velocity at the last state is an evaluation more, which `nfe` leaves out.
 *
 * @param {(x: Float32Array, t: number) => Float32Array | Promise<Float32Array>} velocity must not change its input
 * @param {Float32Array} x state at `grid[0]`; left as it is
 * @param {number[]} grid strictly monotone times
 * @param {{ a: number[][], b: number[], c: number[] }} tableau stage i at time `c[i]` of the step, from the stage
 *   derivatives weighted by `a[i]`; their sum weighted by `b` makes the step
 */
export async function* integrate(velocity, x, grid, { a, b, c }) {
  let derivative = await velocity(x, grid[0]);
  yield { k: 0, t: grid[0], x, velocity: derivative, nfe: 0 };
  for (let k = 1; k < grid.length; k += 1) {
    const h = grid[k] - grid[k - 1];
    const derivatives = [derivative];
    for (let i = 1; i < b.length; i += 1) {
      const stage = combine(x, derivatives, a[i], h);
      derivatives.push(await velocity(stage, c[i] === 1 ? grid[k] : grid[k - 1] + c[i] * h));
    }
    x = combine(x, derivatives, b, h);
    derivative = await velocity(x, grid[k]);
    yield { k, t: grid[k], x, velocity: derivative, nfe: k * b.length };
  }
}

/** `x + h Σ weights_j derivatives_j`, added in double precision and rounded once. */
function combine(x, derivatives, weights, h) {
  return x.map((value, p) => value + h * weights.reduce((sum, weight, j) => sum + weight * derivatives[j][p], 0));
}

/** `steps + 1` equally spaced times from `start` to `end`, both met exactly. */
export function uniformGrid(steps, start = 0, end = 1) {
  return pacedGrid(steps, (u) => u, start, end);
}

/**
 * Times spaced by a pacing: `t_k = start + (end - start) p(k / steps)`.
 *
 * @param {number} steps at least 1
 * @param {(u: number) => number} pacing strictly rising from p(0) = 0 to p(1) = 1
 * @returns {number[]} `steps + 1` times
 */
export function pacedGrid(steps, pacing, start = 0, end = 1) {
  if (!Number.isInteger(steps) || steps < 1) {
    throw new RangeError(`steps: expected a whole number of at least 1, got ${steps}.`);
  }
  const grid = Array.from({ length: steps + 1 }, (_, k) => start + (end - start) * pacing(k / steps));
  [grid[0], grid[steps]] = [start, end];
  if (grid.some((t, k) => k > 0 && !((t - grid[k - 1]) * (end - start) > 0))) {
    throw new RangeError(`times: expected strictly rising or falling, got ${grid.join(", ")}.`);
  }
  return grid;
}

/**
 * A pacing from its values at the Chebyshev points `(1 - cos(π j / n)) / 2`, j = 0 … n.
 *
 * Barycentric interpolation (Berrut and Trefethen 2004, equation 5.4), to double precision for the book's pacings.
 */
export function interpolate(samples) {
  const n = samples.length - 1;
  return (u) => {
    let [above, below] = [0, 0];
    for (let j = 0; j <= n; j += 1) {
      const distance = u - (1 - Math.cos((Math.PI * j) / n)) / 2;
      if (distance === 0) {
        return samples[j];
      }
      const weight = ((j % 2 ? -1 : 1) * (j % n ? 1 : 0.5)) / distance;
      above += weight * samples[j];
      below += weight;
    }
    return above / below;
  };
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { integrate, interpolate, pacedGrid, uniformGrid } from "../../book/fm_book/rungekutta.js";
import { difference, reference } from "./reference.js";

const { tableaux, pacings } = reference.solvers; // as playground.json holds them
const field = (x, t) => x.map((value) => Math.sin(3 * value) - t * value);

async function states(velocity, x, grid, method) {
  const all = [];
  for await (const state of integrate(velocity, Float32Array.from(x), grid, tableaux[method])) {
    all.push(state);
  }
  return all;
}

for (const [name, samples] of Object.entries(pacings)) {
  test(`pacing ${name} between its samples is fm_core's, to double precision`, () => {
    assert.ok(difference(reference.shares.map(interpolate(samples)), reference.pacings[name]) < 4e-15);
  });
}

test("time grids are fm_core's and meet both ends exactly", () => {
  assert.ok(difference(uniformGrid(7), reference.grids.uniform) < 1e-15);
  for (const [name, grid] of Object.entries(reference.grids.paced)) {
    const found = pacedGrid(5, interpolate(pacings[name]), 0.25, 1);
    assert.ok(difference(found, grid) < 4e-15, name);
    assert.deepEqual([found[0], found.at(-1)], [0.25, 1]);
  }
});

test("grids that are none are refused", () => {
  assert.throws(() => uniformGrid(0), /steps: expected a whole number of at least 1, got 0/);
  assert.throws(() => uniformGrid(2.5), /got 2.5/);
  assert.throws(() => uniformGrid(3, 1, 1), /times: expected strictly rising or falling, got 1, 1, 1, 1/);
  assert.throws(() => pacedGrid(4, () => 0.5), /strictly rising/);
});

for (const [method, expected] of Object.entries(reference.trajectories)) {
  test(`${method} gives fm_core's states, velocities and NFE`, async () => {
    const found = await states(field, reference.start, reference.grids.paced.quadratic, method);
    assert.equal(found.length, expected.x.length);
    for (const [k, { t, x, velocity }] of found.entries()) {
      assert.ok(difference([t], [expected.t[k]]) < 1e-6);
      assert.ok(difference(x, expected.x[k]) < 1e-6, `state ${k}`);
      assert.ok(difference(velocity, expected.velocity[k]) < 4e-6, `velocity ${k}`);
    }
    assert.equal(found.at(-1).nfe, expected.nfe);
  });
}

for (const [method, order] of [
  ["euler", 1],
  ["midpoint", 2],
  ["heun", 2],
]) {
  test(`${method} has order ${order}`, async () => {
    const error = async (steps) => {
      const last = (await states((x) => x.map((value) => -value), [1], uniformGrid(steps), method)).at(-1);
      return Math.abs(last.x[0] - Math.exp(-1));
    };
    const fitted = Math.log2((await error(8)) / (await error(16)));
    assert.ok(Math.abs(fitted - order) < 0.1, `fitted order ${fitted}`);
  });
}

test("no velocity is evaluated before its state is asked for, and the start is not changed", async () => {
  let evaluations = 0;
  const counting = (x) => {
    evaluations += 1;
    return x;
  };
  const start = Float32Array.of(1, 2);
  const run = integrate(counting, start, uniformGrid(10), tableaux.heun);
  await run.next();
  assert.equal(evaluations, 1);
  await run.next();
  assert.equal(evaluations, 3); // one more stage, and the velocity at the new state
  assert.deepEqual([...start], [1, 2]);
});

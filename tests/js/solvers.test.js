import assert from "node:assert/strict";
import { test } from "node:test";
import { PACINGS } from "../../book/_static/playground/pacing.js";
import { integrate, pacedGrid, TABLEAUX, uniformGrid } from "../../book/_static/playground/solvers.js";
import { difference, reference } from "./reference.js";

const field = (x, t) => x.map((value) => Math.sin(3 * value) - t * value);

async function states(velocity, x, grid, method) {
  const all = [];
  for await (const state of integrate(velocity, Float32Array.from(x), grid, method)) {
    all.push(state);
  }
  return all;
}

test("the tableaux are fm_core's", () => {
  for (const [name, { a, b, c }] of Object.entries(TABLEAUX)) {
    assert.deepEqual({ a, b, c }, reference.tableaux[name]);
  }
});

test("pacing functions are fm_core's", () => {
  assert.deepEqual(Object.keys(PACINGS).sort(), Object.keys(reference.pacings).sort());
  for (const [name, pacing] of Object.entries(PACINGS)) {
    assert.ok(difference(reference.shares.map(pacing), reference.pacings[name]) < 1e-14, name);
  }
});

test("time grids are fm_core's", () => {
  assert.ok(difference(uniformGrid(7), reference.grids.uniform) < 1e-15);
  for (const [name, grid] of Object.entries(reference.grids.paced)) {
    assert.ok(difference(pacedGrid(5, PACINGS[name], 0.25, 1), grid) < 1e-14, name);
  }
});

test("grids meet both ends exactly", () => {
  const grid = pacedGrid(3, PACINGS.logarithmic, 0.1, 0.7);
  assert.deepEqual([grid[0], grid.at(-1)], [0.1, 0.7]);
});

test("grids that lead nowhere are refused", () => {
  assert.throws(() => uniformGrid(0), /steps=0: give a whole number of at least 1/);
  assert.throws(() => uniformGrid(2.5), /steps=2.5/);
  assert.throws(() => uniformGrid(3, 1, 1), /two different times/);
  assert.throws(() => pacedGrid(4, () => 0.5), /rise strictly/);
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

test("the order of each method shows in its error", async () => {
  const decay = (x) => x.map((value) => -value);
  const error = async (steps, method) => {
    const last = (await states(decay, [1], uniformGrid(steps), method)).at(-1);
    return Math.abs(last.x[0] - Math.exp(-1));
  };
  for (const [method, order] of [
    ["euler", 1],
    ["heun", 2],
  ]) {
    const fitted = Math.log2((await error(8, method)) / (await error(16, method)));
    assert.ok(Math.abs(fitted - order) < 0.1, `${method}: ${fitted}`);
  }
});

test("states come one at a time, and the velocity is asked no earlier than needed", async () => {
  let asked = 0;
  const counting = (x) => {
    asked += 1;
    return x;
  };
  const run = integrate(counting, new Float32Array(2), uniformGrid(10), "heun");
  await run.next();
  assert.equal(asked, 1);
  await run.next();
  assert.equal(asked, 3); // one more stage, and the velocity at the new state
});

test("the start is left as it is", async () => {
  const x = Float32Array.of(1, 2);
  await states((y) => y, x, uniformGrid(3), "rk4");
  assert.deepEqual([...x], [1, 2]);
});

test("an unknown method is refused by name", async () => {
  await assert.rejects(
    states(field, [1], uniformGrid(2), "leapfrog"),
    /method=leapfrog is unknown; choose one of euler/,
  );
});

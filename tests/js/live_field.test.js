import assert from "node:assert/strict";
import { test } from "node:test";
import { disc, flow, readNetwork } from "../../book/fm_book/live_field.js";
import { difference, reference } from "./reference.js";

const { networks, points, t, flows } = reference.plane;

for (const [name, { description, velocity }] of Object.entries(networks)) {
  test(`a network with ${name} gives PyTorch's velocities`, () => {
    const found = readNetwork(description)(Float32Array.from(points), t);
    assert.ok(difference(found, velocity) < 1e-5);
  });
}

test("particles arrive where fm_core's RK4 takes them", async () => {
  const { rk4 } = reference.solvers.tableaux;
  const states = await flow(readNetwork(networks.tanh.description), Float32Array.from(points), flows.steps, rk4);
  assert.equal(states.length, flows.steps + 1);
  assert.ok(difference(states[0], points) < 1e-6);
  assert.ok(difference(states.at(-1), flows.end) < 1e-5);
});

test("an unknown layer is refused by name", () => {
  assert.throws(
    () => readNetwork({ layers: [{ kind: "maxout" }] }),
    /layer: expected one of linear, tanh, .* got maxout/,
  );
});

test("dropped points lie around the point that was clicked", () => {
  const points = disc(1, -2, 24);
  for (let i = 0; i < points.length; i += 2) {
    assert.ok(Math.hypot(points[i] - 1, points[i + 1] + 2) <= 0.15);
  }
  assert.deepEqual([...points.subarray(0, 2)], [1, -2]);
});

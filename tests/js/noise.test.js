import assert from "node:assert/strict";
import { test } from "node:test";
import { normals } from "../../book/_static/playground/noise.js";
import { difference, reference } from "./reference.js";

test("noise is what the same recipe gives in Python", () => {
  for (const [seed, expected] of Object.entries(reference.noise)) {
    assert.ok(difference(normals(expected.length, Number(seed)), expected) < 1e-6, `seed ${seed}`);
  }
});

test("a longer array begins with the shorter one", () => {
  assert.deepEqual([...normals(1000, 5).subarray(0, 784)], [...normals(784, 5)]);
});

const moments = (values) => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return { mean, variance };
};

test("noise is standard normal: mean, variance, tails", () => {
  const values = normals(200_000, 3);
  const { mean, variance } = moments(values);
  assert.ok(Math.abs(mean) < 5 / Math.sqrt(200_000));
  assert.ok(Math.abs(variance - 1) < 5 * Math.sqrt(2 / 200_000));
  const beyond = values.filter((value) => Math.abs(value) > 1.959964).length / 200_000;
  assert.ok(Math.abs(beyond - 0.05) < 0.0025);
});

test("neighbouring seeds share nothing", () => {
  const count = 784;
  let worst = 0;
  for (let seed = 0; seed < 100; seed += 1) {
    const [a, b] = [normals(count, seed), normals(count, seed + 1)];
    const correlation = a.reduce((sum, value, i) => sum + value * b[i], 0) / count;
    worst = Math.max(worst, Math.abs(correlation));
  }
  assert.ok(worst < 5 / Math.sqrt(count), `correlation ${worst}`);
});

test("a seed that is none is refused", () => {
  for (const seed of [-1, 1.5, 2 ** 32 - 1, Number.NaN]) {
    assert.throws(() => normals(2, seed), /seed=/);
  }
  assert.equal(normals(2, 2 ** 32 - 2).length, 2);
});

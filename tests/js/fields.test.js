import assert from "node:assert/strict";
import { test } from "node:test";
import { diverging, inkArrows, mix, paintGrey, paintVelocity, quantile } from "../../book/_static/playground/fields.js";
import { blank, SAMPLES, sample, stroke } from "../../book/_static/playground/pad.js";
import { difference, reference } from "./reference.js";

test("arrows are those of fm_core.plotting.ink_arrows", () => {
  const arrows = inkArrows(Float32Array.from(reference.arrows.velocity));
  for (const key of ["x", "y", "dx", "dy"]) {
    const found = arrows.map((arrow) => arrow[key]);
    assert.ok(difference(found, reference.arrows[key]) < 1e-6, key);
  }
});

test("too few blocks for a gradient are refused", () => {
  assert.throws(() => inkArrows(new Float32Array(784), 20), /factor=20 leaves fewer than 2 × 2 blocks/);
});

test("colours are those of matplotlib's map, to its 256 steps", () => {
  const found = reference.colours.values.map((value) => diverging(value, 2));
  assert.ok(difference(found.flat(), reference.colours.rgb.flat()) <= 3);
  assert.deepEqual(diverging(0, 1), [247, 247, 247]);
  assert.deepEqual(diverging(9, 1), diverging(1, 1));
});

test("grey levels are those of fm_core.plotting.to_uint8", () => {
  const rgba = new Uint8ClampedArray(4 * reference.greys.x.length);
  paintGrey(Float32Array.from(reference.greys.x), rgba);
  const grey = reference.greys.x.map((_, p) => rgba[4 * p]);
  assert.ok(difference(grey, reference.greys.uint8) <= 1); // the two round a half to different sides
  assert.ok(rgba.every((value, i) => i % 4 !== 3 || value === 255));
});

test("velocities are painted opaque, red where ink arrives", () => {
  const rgba = new Uint8ClampedArray(8);
  paintVelocity(Float32Array.of(1, -1), 1, rgba);
  assert.deepEqual([...rgba], [103, 0, 31, 255, 5, 48, 97, 255]);
});

test("quantiles", () => {
  assert.equal(quantile([3, 1, 2], 0), 1);
  assert.equal(quantile([3, 1, 2], 0.5), 2);
  assert.equal(quantile([3, 1, 2], 1), 3);
});

test("a drawing is mixed with each noise on the straight path", () => {
  const mixed = mix(Float32Array.of(1, 2, 3, 4), Float32Array.of(-1, 1), 0.25);
  assert.deepEqual([...mixed], [0.5, 1.75, 2, 3.25]);
});

test("ink only adds, and a stroke inks its own pixels fully", () => {
  const image = blank();
  stroke(image, [14, 5], [14, 20]);
  assert.equal(image[10 * 28 + 13], 1);
  assert.equal(image[10 * 28 + 14], 1);
  assert.equal(image[10 * 28 + 20], -1);
  const before = image[10 * 28 + 13];
  stroke(image, [0, 0], [0, 0]);
  assert.equal(image[10 * 28 + 13], before);
  assert.ok(image[0] > 0);
});

test("every sample drawing has ink and stays off the border", () => {
  for (const name of Object.keys(SAMPLES)) {
    const image = sample(name);
    const inked = image.filter((value) => value > 0).length;
    assert.ok(inked > 20 && inked < 200, `${name}: ${inked} pixels`);
    for (let i = 0; i < 28; i += 1) {
      for (const p of [i, 27 * 28 + i, 28 * i, 28 * i + 27]) {
        assert.equal(image[p], -1, name);
      }
    }
  }
});

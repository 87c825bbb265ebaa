/**
 * Values of fm_core to compare with; `python -m pytest tests/unit/test_javascript.py` computes them and runs these tests.
 */

import { readFileSync } from "node:fs";

const file = process.env.FM_JS_REFERENCE;
if (!file) {
  throw new Error(
    "Run these tests by `python -m pytest tests/unit/test_javascript.py`, which computes their reference.",
  );
}
export const reference = JSON.parse(readFileSync(file, "utf8"));

/** The largest difference between two arrays of numbers; arrays of unlike length differ by infinity. */
export function difference(a, b) {
  if (a.length !== b.length) {
    return Infinity;
  }
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

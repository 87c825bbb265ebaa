/** One network's digits on a canvas: a square of tiles, or a row, in grey, with arrows, or as signed velocity. */

import { arrowPath } from "./arrow.js";
import { inkArrows, PIXELS, paintGrey, paintVelocity, quantile, SIDE } from "./fields.js";

const ARROW = "#ff9e1b";
const FACTOR = 4; // pixels of the digit per arrow
const REACH = 1.3 * FACTOR; // length of the longest arrow, in pixels of the digit
const FAINT = 0.08; // arrows shorter than this share of the longest are left out
const GAP = 2; // between tiles, in pixels of the digit

/**
 * Draw a batch of digits.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {{ x: Float32Array, velocity: Float32Array }} state of whole images, one after the other
 * @param {{ columns: number, view: "digits" | "arrows" | "velocity", limit: number, reference: number }} look
 *   `limit` spans the velocity's colours; `reference` is the gradient of the longest arrow
 */
export function drawBatch(canvas, state, { columns, view, limit, reference }) {
  const batch = state.x.length / PIXELS;
  const rows = Math.ceil(batch / columns);
  const across = columns * SIDE + (columns - 1) * GAP;
  const shown = canvas.clientWidth * (globalThis.devicePixelRatio || 1);
  const scale = Math.max(2, Math.ceil(shown / across - 0.05)); // whole pixels: every pixel of a digit looks alike
  canvas.width = across * scale;
  canvas.height = (rows * SIDE + (rows - 1) * GAP) * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  const tile = new OffscreenCanvas(SIDE, SIDE);
  const pen = tile.getContext("2d");
  const pixels = pen.createImageData(SIDE, SIDE);
  for (let i = 0; i < batch; i += 1) {
    const part = [i * PIXELS, (i + 1) * PIXELS];
    if (view === "velocity") {
      paintVelocity(state.velocity.subarray(...part), limit, pixels.data);
    } else {
      paintGrey(state.x.subarray(...part), pixels.data);
    }
    pen.putImageData(pixels, 0, 0);
    const left = (i % columns) * (SIDE + GAP) * scale;
    const top = Math.floor(i / columns) * (SIDE + GAP) * scale;
    context.drawImage(tile, left, top, SIDE * scale, SIDE * scale);
    if (view === "arrows") {
      drawArrows(context, inkArrows(state.velocity.subarray(...part), FACTOR), reference, left, top, scale);
    }
  }
}

/** The length that 98 % of a state's arrows stay below, as the book's films scale theirs. */
export function arrowScale(velocity) {
  const lengths = [];
  for (let i = 0; i < velocity.length; i += PIXELS) {
    for (const { dx, dy } of inkArrows(velocity.subarray(i, i + PIXELS), FACTOR)) {
      lengths.push(Math.hypot(dx, dy));
    }
  }
  return quantile(lengths, 0.98);
}

/** The speed that 98 % of a state's pixels stay below: beyond it, colours are full. */
export function velocityScale(velocity) {
  return quantile(velocity.map(Math.abs), 0.98);
}

function drawArrows(context, arrows, reference, left, top, scale) {
  context.save();
  context.translate(left, top);
  context.scale(scale, scale);
  context.lineJoin = "round";
  for (const { x, y, dx, dy } of arrows) {
    const strength = Math.min(1, Math.hypot(dx, dy) / reference);
    if (strength >= FAINT) {
      context.save();
      context.translate(x + 0.5, y + 0.5);
      context.rotate(Math.atan2(dy, dx));
      const length = strength * REACH;
      arrowPath(context, length, { head: 2.2, wing: 0.5 * Math.min(2.2, length), shaft: 0.28 });
      context.lineWidth = 0.25;
      context.strokeStyle = "black";
      context.stroke();
      context.fillStyle = ARROW;
      context.fill();
      context.restore();
    }
  }
  context.restore();
}

/** A drawing of 28 × 28 pixels: strokes of a soft brush, by hand or from a few sample drawings. */

import { PIXELS, paintGrey, SIDE } from "./fields.js";

const RADIUS = 1.1; // of the brush's full ink, in pixels
const SOFT = 0.9; // width of its edge, as in scanned pen strokes

/** Sample drawings: strokes, each an array of points in pixels. Some are digits, some are none. */
export const SAMPLES = {
  ring: [arc(14, 14, 5.5, 8, 0, 2 * Math.PI)],
  hook: [line(7, 7, 20, 7, 12, 23)],
  "two bows": [[...arc(13, 9.5, 5, 4.5, -2.6, 1.4), ...arc(13, 18.5, 5, 4.5, -1.4, 2.6)]],
  "half an eight": [arc(14, 9.5, 4.5, 4.5, 0, 2 * Math.PI)],
  triangle: [line(14, 6, 22, 21, 6, 21, 14, 6)],
  face: [line(10, 9, 10, 10), line(18, 9, 18, 10), arc(14, 14, 7, 7, 0.4, Math.PI - 0.4)],
};

function line(...numbers) {
  return Array.from({ length: numbers.length / 2 }, (_, i) => [numbers[2 * i], numbers[2 * i + 1]]);
}

function arc(x, y, across, down, from, to) {
  return Array.from({ length: 25 }, (_, i) => {
    const angle = from + ((to - from) * i) / 24;
    return [x + across * Math.cos(angle), y + down * Math.sin(angle)];
  });
}

/** An empty drawing: all pixels -1, black. */
export function blank() {
  return new Float32Array(PIXELS).fill(-1);
}

/** Draw a straight stroke into an image; ink only adds. Points are in pixels, where 0.5 is the middle of the first. */
export function stroke(image, [fromX, fromY], [toX, toY]) {
  const [runX, runY] = [toX - fromX, toY - fromY];
  const squared = runX * runX + runY * runY;
  for (let p = 0; p < PIXELS; p += 1) {
    const x = (p % SIDE) + 0.5 - fromX;
    const y = Math.floor(p / SIDE) + 0.5 - fromY;
    const along = squared === 0 ? 0 : Math.min(1, Math.max(0, (x * runX + y * runY) / squared));
    const distance = Math.hypot(x - along * runX, y - along * runY);
    const ink = Math.min(1, Math.max(0, (RADIUS + SOFT - distance) / SOFT));
    image[p] = Math.max(image[p], 2 * ink - 1);
  }
}

/** A sample drawing as an image. */
export function sample(name) {
  const image = blank();
  for (const points of SAMPLES[name]) {
    for (let i = 1; i < points.length; i += 1) {
      stroke(image, points[i - 1], points[i]);
    }
  }
  return image;
}

/** A canvas on which the reader draws. */
export class Pad {
  #last = null;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{ onchange: () => void }} listeners told of each change
   */
  constructor(canvas, { onchange }) {
    this.canvas = canvas;
    this.onchange = onchange;
    this.image = blank();
    canvas.width = SIDE;
    canvas.height = SIDE;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#last = this.#place(event);
      this.#reach(event);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.#last) {
        const points = event.getCoalescedEvents?.() ?? [];
        for (const one of points.length ? points : [event]) {
          this.#reach(one);
        }
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        this.#last = null;
      });
    }
    this.show(this.image);
  }

  /** Show another drawing. */
  show(image) {
    this.image = image;
    const pen = this.canvas.getContext("2d");
    const pixels = pen.createImageData(SIDE, SIDE);
    paintGrey(image, pixels.data);
    pen.putImageData(pixels, 0, 0);
    this.onchange();
  }

  clear() {
    this.show(blank());
  }

  #place({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [((clientX - box.left) / box.width) * SIDE, ((clientY - box.top) / box.height) * SIDE];
  }

  #reach(event) {
    const place = this.#place(event);
    stroke(this.image, this.#last, place);
    this.#last = place;
    this.show(this.image);
  }
}

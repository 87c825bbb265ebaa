/**
 * Pictures of states and velocities as numbers: grey levels, the diverging colours, and where ink is going.
 *
 * The arrows are those of `fm_core.plotting.ink_arrows`: the spatial gradient of the block-averaged velocity, pointing
 * where ink arrives. They are not the velocity of particles in the plane.
 */

export const SIDE = 28;
export const PIXELS = SIDE * SIDE;

// Brewer's eleven colours from blue (ink leaves) to red (ink arrives), as matplotlib's RdBu_r joins them.
const DIVERGING = [
  [5, 48, 97],
  [33, 102, 172],
  [67, 147, 195],
  [146, 197, 222],
  [209, 229, 240],
  [247, 247, 247],
  [253, 219, 199],
  [244, 165, 130],
  [214, 96, 77],
  [178, 24, 43],
  [103, 0, 31],
];

/** RGB of a value in [-limit, limit]; values beyond take the end's colour. */
export function diverging(value, limit) {
  const place = Math.min(1, Math.max(0, (value / limit + 1) / 2)) * (DIVERGING.length - 1);
  const left = Math.min(DIVERGING.length - 2, Math.floor(place));
  return DIVERGING[left].map((one, i) => Math.round(one + (place - left) * (DIVERGING[left + 1][i] - one)));
}

/** Write a picture of pixels in [-1, 1] as grey RGBA: -1 is black, 1 is white. */
export function paintGrey(x, rgba) {
  for (let p = 0; p < x.length; p += 1) {
    const grey = Math.min(255, Math.max(0, (x[p] + 1) * 127.5));
    rgba.set([grey, grey, grey, 255], 4 * p);
  }
}

/** Write a picture of velocities as RGBA: red where ink arrives, blue where it leaves. */
export function paintVelocity(velocity, limit, rgba) {
  for (let p = 0; p < velocity.length; p += 1) {
    rgba.set([...diverging(velocity[p], limit), 255], 4 * p);
  }
}

/**
 * Arrows that point where ink arrives, one for each block of `factor` × `factor` pixels.
 *
 * @param {Float32Array} velocity of one image, `side` × `side`
 * @returns {{ x: number, y: number, dx: number, dy: number }[]} centres in pixels, where a whole number is the centre
 *   of a pixel, and gradients in grey levels per unit time and pixel; y points down
 */
export function inkArrows(velocity, factor = 4, side = SIDE) {
  const blocks = Math.floor(side / factor);
  if (blocks < 2) {
    throw new RangeError(`factor=${factor} leaves fewer than 2 × 2 blocks of ${side} × ${side} pixels.`);
  }
  const mean = blockAverage(velocity, factor, side);
  const slope = (at, i) => {
    const [low, high] = [Math.max(0, i - 1), Math.min(blocks - 1, i + 1)];
    return (at(high) - at(low)) / ((high - low) * factor);
  };
  const arrows = [];
  for (let row = 0; row < blocks; row += 1) {
    for (let column = 0; column < blocks; column += 1) {
      arrows.push({
        x: column * factor + (factor - 1) / 2,
        y: row * factor + (factor - 1) / 2,
        dx: slope((i) => mean[row * blocks + i], column),
        dy: slope((i) => mean[i * blocks + column], row),
      });
    }
  }
  return arrows;
}

function blockAverage(image, factor, side) {
  const blocks = Math.floor(side / factor);
  const mean = new Float64Array(blocks * blocks);
  for (let row = 0; row < blocks * factor; row += 1) {
    for (let column = 0; column < blocks * factor; column += 1) {
      const block = Math.floor(row / factor) * blocks + Math.floor(column / factor);
      mean[block] += image[row * side + column] / (factor * factor);
    }
  }
  return mean;
}

/** The value that this share of the values does not exceed. */
export function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.floor(share * (sorted.length - 1))];
}

/** The noisy picture that lies at time t on the straight line from the noise to a drawing: `(1 - t) x_0 + t x_1`. */
export function mix(noise, drawing, t) {
  return Float32Array.from(noise, (value, p) => (1 - t) * value + t * drawing[p % drawing.length]);
}

/**
 * Standard normal noise from a seed, the same in every browser.
 *
 * Uniform numbers come from Marsaglia's 32-bit xorshift (2003, shifts 13, 17, 5), made normal in pairs by Box and
 * Muller's transform (1958). Simple enough to be written again in another language, which the tests do.
 */

const WORD = 2 ** 32;
const GOLDEN = 0x9e3779b9; // spreads neighbouring seeds over the states
const SKIPPED = 16; // the first words of xorshift still show the seed's bits

/**
 * `count` normal numbers. A longer array begins with the shorter one of the same seed.
 *
 * @param {number} count how many
 * @param {number} seed whole number from 0 to 2³² - 2
 * @returns {Float32Array}
 */
export function normals(count, seed) {
  const next = words(seed);
  const out = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((next() + 1) / WORD)); // the logarithm's argument is never 0
    const angle = (2 * Math.PI * next()) / WORD;
    out[i] = radius * Math.cos(angle);
    if (i + 1 < count) {
      out[i + 1] = radius * Math.sin(angle);
    }
  }
  return out;
}

function words(seed) {
  if (!Number.isInteger(seed) || seed < 0 || seed > WORD - 2) {
    throw new RangeError(`seed=${seed}: give a whole number from 0 to ${WORD - 2}.`);
  }
  let state = Math.imul(seed + 1, GOLDEN); // an odd factor: no two seeds share a state, and none has state 0
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  for (let i = 0; i < SKIPPED; i += 1) {
    next();
  }
  return next;
}

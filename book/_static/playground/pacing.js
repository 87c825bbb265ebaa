/**
 * Pacing functions, as in `fm_core.pacing`: each rises from 0 to 1.
 *
 * Here they space the times at which a solver steps: many steps lie where the slope is small.
 */

const CURVATURE = 9; // the logarithmic pacing starts (1 + 9) times as fast as it ends

const logarithmic = (u) => Math.log1p(CURVATURE * u) / Math.log1p(CURVATURE);

export const PACINGS = {
  linear: (u) => u,
  quadratic: (u) => u * u,
  inverse_quadratic: (u) => 1 - (1 - u) * (1 - u),
  logarithmic,
  reverse_logarithmic: (u) => 1 - logarithmic(1 - u),
};

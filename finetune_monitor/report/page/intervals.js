"use strict";

// The mean of paired differences with its 95% interval, by the same formulas as the command (stats/intervals.py).

const NORMAL = 1.959964;

// Student's t for 95%, by degrees of freedom from 1; beyond these, an expansion is accurate to a thousandth.
const FEW_DEGREES = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281];

// The half-width of the interval in standard errors (Abramowitz and Stegun 1964, 26.7.5).
function reach(degrees) {
  const z = NORMAL;
  const terms = [
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
  ];
  return FEW_DEGREES[degrees - 1] ?? terms.reduce((sum, term, power) => sum + term / degrees ** (power + 1), z);
}

function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

// {error, draws}: the standard error over the draws of noise, that is, the seeds: values with one seed are one draw
// (Cochran 1977, 6.3).
function spread(values, seeds) {
  const middle = mean(values);
  const sums = new Map();
  values.forEach((value, index) => sums.set(seeds[index], (sums.get(seeds[index]) ?? 0) + value - middle));
  const squares = [...sums.values()].reduce((sum, deviation) => sum + deviation ** 2, 0);
  return { error: Math.sqrt((sums.size / (sums.size - 1)) * squares) / values.length, draws: sums.size };
}

// {mean, low, high} of paired differences of a score, or of a share of images. No interval for fewer than two draws, and
// nothing without values.
function changeInterval(differences, seeds, isShare) {
  const middle = mean(differences);
  if (new Set(seeds).size < 2) {
    return { mean: middle, low: null, high: null };
  }
  return { mean: middle, ...(isShare ? shareEnds : scoreEnds)(differences, seeds) };
}

// Fewer equal draws than these have no interval, unless nothing has changed (Thompson 1936).
const FEWEST_EQUAL = 6;

// Student's t interval (Student 1908).
function scoreEnds(differences, seeds) {
  const middle = mean(differences);
  const { error, draws } = spread(differences, seeds);
  if (error < ROUNDING && draws < FEWEST_EQUAL && differences.some((value) => value !== 0)) {
    return { low: null, high: null };
  }
  const half = error < ROUNDING ? 0 : reach(draws - 1) * error;
  return { low: middle - half, high: middle + half };
}

// The adjusted Wald interval (Bonett and Price 2012).
function shareEnds(differences, seeds) {
  const size = sampleSize(differences, seeds);
  const total = size + 2;
  const [rise, fall] = [1, -1].map((side) => (mean(differences.map((value) => Math.max(side * value, 0))) * size + 1) / total);
  const half = NORMAL * Math.sqrt((rise + fall - (rise - fall) ** 2) / total);
  return { low: Math.max(rise - fall - half, -1), high: Math.min(rise - fall + half, 1) };
}

// The number of independent images that tell as much about a share (Korn and Graubard 1998), at least the number of
// draws; the design effect is from 1 to the number of images per draw (Kish 1965).
function sampleSize(values, seeds) {
  const { error, draws } = spread(values, seeds);
  const count = values.length;
  if (draws === count) {
    return count;
  }
  const independent = spread(values, values.map((_, index) => index)).error;
  const most = count / draws;
  const effect = independent > 0 ? Math.min(Math.max((error / independent) ** 2, 1), most) : most;
  return Math.max(draws, (count / effect) * (reach(count - 1) / reach(draws - 1)) ** 2);
}

"use strict";

// The mean of paired differences with its uncertainty: Student's t interval, 95% (Student 1908).

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

// {mean, low, high} over the draws of noise, that is, the seeds: values with one seed are one draw (Cochran 1977, 6.3).
// No interval for fewer than two draws, and nothing without values.
function meanInterval(values, seeds) {
  const middle = mean(values);
  const sums = new Map();
  values.forEach((value, index) => sums.set(seeds[index], (sums.get(seeds[index]) ?? 0) + value - middle));
  if (sums.size < 2) {
    return { mean: middle, low: null, high: null };
  }
  const squares = [...sums.values()].reduce((sum, deviation) => sum + deviation ** 2, 0);
  const half = reach(sums.size - 1) * Math.sqrt((sums.size / (sums.size - 1)) * squares) / values.length;
  return { mean: middle, low: middle - half, high: middle + half };
}

"use strict";

// The mean of paired differences and how sure it is: a percentile bootstrap over the pairs (Efron 1979).

const ROUNDS = 2000;

// Numbers from 0 to 1, always the same for a seed (mulberry32).
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

// {mean, low, high}: the 95 % interval of a mean; no interval of fewer than two values, nothing of none.
function resampledMean(values) {
  if (values.length < 2) {
    return { mean: mean(values), low: null, high: null };
  }
  const random = generator(0);
  const means = Array.from({ length: ROUNDS }, () => {
    let sum = 0;
    for (let drawn = 0; drawn < values.length; drawn++) {
      sum += values[Math.floor(random() * values.length)];
    }
    return sum / values.length;
  }).sort((a, b) => a - b);
  return { mean: mean(values), low: quantile(means, 0.025), high: quantile(means, 0.975) };
}

function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

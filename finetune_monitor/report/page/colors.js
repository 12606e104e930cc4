"use strict";

// The charts' colors, light and dark: Okabe and Ito's for runs side by side, an ordered scale for numbers.

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const MARKERS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x"];
const PALETTE = 7;
const ROW = 4;

const darkness = matchMedia("(prefers-color-scheme: dark)");

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function transparent(hex, opacity) {
  const [red, green, blue] = channels(hex);
  return `rgba(${red},${green},${blue},${opacity})`;
}

function channels(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

// The color at a position from 0 to 1 on the ordered scale, between its stops.
function orderedColor(share) {
  const place = Math.min(Math.max(share, 0), 1) * (ROW - 1);
  const first = Math.min(Math.floor(place), ROW - 2);
  const [from, to] = [first, first + 1].map((stop) => channels(color(`row${stop}`)));
  const mixed = from.map((value, index) => Math.round(value + (place - first) * (to[index] - value)));
  return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

// The style of one series among others: {color, dash, symbol}.
function seriesStyle(index) {
  const turn = Math.floor(index / PALETTE);
  return { color: color(`run${index % PALETTE}`), dash: DASHES[turn % 5], symbol: MARKERS[index % 7] };
}

// The style of a value on the sweep's axis; colors are ordered like the values.
function valueStyle(place, values, group) {
  const share = values > 1 ? place / (values - 1) : 0.5;
  return { color: orderedColor(share), dash: DASHES[group % 5], symbol: MARKERS[(values > 7 ? group : place) % 7] };
}

// The style of a run: by its value if it is a trial of the sweep, otherwise by its index among the runs.
function runStyle(run) {
  const { sweep, runs } = page.manifest;
  const trial = sweep?.axis.key ? sweep.trials.find((each) => each.run === run.id) : null;
  if (trial) {
    const { values } = sweep.axis;
    return valueStyle(Math.max(0, values.indexOf(trial.value)), values.length, trial.group ?? 0);
  }
  return seriesStyle(runs.indexOf(run));
}

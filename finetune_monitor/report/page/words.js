"use strict";

// Numbers, names, and steps as text, for every section of the page.

const MISSING = "not measured";
const WIDE = 5; // scores on a scale longer than this get two decimals, as stars do, otherwise three
const ROUNDING = 1e-9; // smaller numbers are rounding errors

const ACRONYMS = /\b(clip|dino|sscd)\b/g;

// "face_similarity_held_out" in plain words; "clip_score" is "CLIP score".
function spoken(name) {
  return name.replaceAll("_", " ").replace(ACRONYMS, (word) => word.toUpperCase());
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function digitsOf(metric) {
  const isWide = metric?.bounds && metric.bounds[1] - metric.bounds[0] > WIDE;
  return metric?.is_stars || isWide ? 2 : 3;
}

// Two significant digits of the greatest number where that is below the last of the usual decimals, and one of the end
// nearest to 0 where an interval excludes 0 by less; as the commands do it.
function decimalsOf([mean, low, high], metric) {
  const [usual, greatest] = [digitsOf(metric), Math.max(0, ...[mean, low, high].filter(isNumber).map(Math.abs))];
  const nearest = low * high > 0 ? Math.min(Math.abs(low), Math.abs(high)) : 0;
  const isSmall = greatest > ROUNDING && greatest < 10 ** -usual;
  const isNear = nearest > ROUNDING && nearest < 10 ** -usual / 2;
  return Math.max(isSmall ? 1 - Math.floor(Math.log10(greatest)) : usual, isNear ? -Math.floor(Math.log10(nearest)) : usual);
}

// Never a negative zero.
function number(value, metric, decimals = digitsOf(metric)) {
  const text = isNumber(value) ? value.toFixed(decimals) : MISSING;
  return text.replace("-", /[1-9]/.test(text) ? "−" : "");
}

function signed(value, metric, decimals = digitsOf(metric)) {
  return isNumber(value) && value > 0 ? `+${number(value, metric, decimals)}` : number(value, metric, decimals);
}

// "0.52 [0.48, 0.56]"; without the brackets if there is no interval.
function withInterval({ mean, low, high }, metric, write = number) {
  const decimals = decimalsOf([mean, low, high], metric);
  const [middle, ...ends] = [mean, low, high].map((value) => write(value, metric, decimals));
  return [mean, low, high].every(isNumber) ? `${middle} [${ends.join(", ")}]` : middle;
}

// The mean, its interval, and the number of measured images if some are missing.
function estimateInWords(estimate, metric) {
  const { mean, n, missing } = estimate;
  const share = isNumber(mean) && missing > 0 ? ` (${n} of ${n + missing} images)` : "";
  return withInterval(estimate, metric) + share;
}

// The last part of a setting's key: "data.instance_count" becomes "instance count".
function briefKey(key) {
  return spoken(key.split(".").at(-1));
}

// Which direction is better; empty if unknown.
function direction(metric) {
  if (metric.higher_is_better === null) {
    return "";
  }
  return metric.higher_is_better ? "↑ higher is better" : "↓ lower is better";
}

// A value of an axis or setting; numbers are shortened.
function shortValue(value) {
  if (!isNumber(value)) {
    return value === null || value === undefined ? "none" : String(value);
  }
  const isPlain = value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6);
  return isPlain ? String(Number(value.toPrecision(4))) : value.toExponential(1).replace(/(\.0)?e\+?/, "e");
}

function whenWritten(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : date.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

// A long text in lines of about this many letters.
function wrapped(text, length = 60) {
  const found = [""];
  for (const word of text.split(" ")) {
    if (found.at(-1).length + word.length > length) {
      found.push("");
    }
    found.push(`${found.pop()} ${word}`.trim());
  }
  return found;
}

function shortened(text, length) {
  const letters = [...text];
  return letters.length > length ? `${letters.slice(0, length - 1).join("")}…` : text;
}

// A command argument quoted for a POSIX shell.
function shellWord(text) {
  return /^[\w./@%+=:,][\w./@%+=:,-]*$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

"use strict";

// Alarms: their levels and marks in the curves, their text at a step, and the photos that images are nearest to.

const MOST_PAIRS = 5; // pairs of an image and a photo to show below an alarm

// ---- In the curves

// {level, side, sounds: text by step} of a metric's alarm; null if the metric has none.
function alarmOf(run, { name }) {
  return run.scores[name] ? (run.alarms[name] ?? null) : null;
}

function hasAlarms() {
  const { runs, metrics } = page.manifest;
  return runs.some((run) => metrics.some((metric) => alarmOf(run, metric)));
}

// The text of a metric's alarm at a step; empty if it does not sound.
function alarmWords(run, name, step) {
  return run.alarms[name]?.sounds[step] ?? "";
}

function levelInWords({ side, level }) {
  return `alarm ${side} ${shortValue(level)}`;
}

function alarmShape({ level }) {
  return { ...levelShape(level), line: { color: color("poor"), width: 1.4, dash: "dash" }, layer: "above" };
}

// On the left, because the floor and the ceiling have their names on the right.
function alarmName(alarm) {
  const name = levelName(alarm.level, levelInWords(alarm));
  return { ...name, x: 0, xanchor: "left", font: { ...name.font, color: color("poor") } };
}

// A mark above each point at which the alarm starts, with its sentence when pointed at.
function alarmMarks(run, { name }) {
  const [across, up] = [positionsOf(run), run.scores[name].mean];
  const look = { text: "!", font: { size: 12, weight: 700, color: color("card") }, bgcolor: color("poor"), width: 11, borderpad: 1 };
  const sounds = (place) => place >= 0 && alarmWords(run, name, run.steps[place]) !== "";
  return run.steps
    .map((step, place) => ({ x: across[place], y: up[place], starts: sounds(place) && !sounds(place - 1), said: alarmWords(run, name, step) }))
    .filter(({ x, y, starts }) => starts && isNumber(x) && isNumber(y))
    .map(({ x, y, said }) => ({ x, y, yshift: 18, showarrow: false, hovertext: lines(...wrapped(said)), ...look }));
}

// When the alarm sounds and what that means; empty if it never does.
function soundingInWords(run, metric) {
  const sounding = run.steps.filter((step) => alarmWords(run, metric.name, step));
  if (sounding.length === 0) {
    return "";
  }
  const [first, last] = [sounding[0], sounding.at(-1)];
  const when = sounding.length === 1 ? `at step ${first}` : `in ${sounding.length} evaluations from step ${first} to ${last}`;
  return `Alarm ${when}: ${run.alarms[metric.name].says}.`;
}

// ---- At the chosen evaluation

function drawAlarms(run, place, content) {
  const sounding = Object.keys(run.alarms).filter((name) => alarmWords(run, name, run.steps[place]));
  at("alarms").hidden = sounding.length === 0;
  keeping(at("alarms"), () => at("alarms").replaceChildren(...sounding.map((name) => alarmItem(run, place, content, name))));
}

function alarmItem(run, place, content, name) {
  const words = element("p", "", "", element("strong", "", "Alarm: "), alarmWords(run, name, run.steps[place]));
  const strips = run.nearest.filter(({ alarms }) => alarms.includes(name)).map((nearest) => pairStrip(run, place, content, name, nearest));
  return element("li", "alarm", "", words, ...strips.filter(Boolean));
}

// The images most similar to a photo, each next to it; null if there are none.
function pairStrip(run, place, content, name, nearest) {
  const positions = alikePositions(run, place, content, name, nearest);
  if (positions.length === 0) {
    return null;
  }
  const shown = positions.slice(0, MOST_PAIRS);
  const many = shown.length < positions.length ? `the ${shown.length} most similar of ${positions.length}` : count(shown.length, "pair");
  const strip = element("ul", "alike", "", ...shown.map((position) => element("li", "", "", pairButton(run, place, content, nearest, shown, position))));
  return element("div", "", "", element("h3", "", `Image and ${spoken(nearest.column)}: ${many}`), strip);
}

// Positions of the images whose own score is beyond the alarm level, most similar to its photo first.
function alikePositions(run, place, content, name, nearest) {
  const likeness = (position) => scoreOf(content, nearest.likeness, place, position);
  return run.cells
    .map((_, position) => position)
    .filter((position) => photoOf(run, content, place, position, nearest) && isBeyond(run.alarms[name], scoreOf(content, name, place, position)))
    .sort((a, b) => likeness(b) - likeness(a) || a - b);
}

// An alarm of an entire evaluation has no scores of images: then every image counts.
function isBeyond({ level, side }, score) {
  return score === null || (side === "above" ? score > level : score < level);
}

function pairButton(run, place, content, nearest, shown, position) {
  const open = button("shot", "", () => openEnlarged(run, place, shown, position));
  open.dataset.key = `${nearest.column} ${position}`;
  const photo = photoOf(run, content, place, position, nearest);
  open.append(
    element("span", "two", "", cellImage(run, place, position), photoImage(photo)),
    element("span", "", likenessInWords(content, place, position, nearest)),
  );
  return open;
}

// ---- The photo that an image is nearest to

// {name, thumbnail} of the photo; null if unknown.
function photoOf(run, content, place, position, { column, references }) {
  return run.references[references[scoreOf(content, column, place, position)]] ?? null;
}

function photoImage({ name, thumbnail: address }) {
  return address ? thumbnail(address, `Photo ${name}`) : noImage(name);
}

function likenessInWords(content, place, position, { likeness }) {
  return `${spoken(likeness)} ${number(scoreOf(content, likeness, place, position), metricOf(likeness))}`;
}

// A figure for each column of the run that names a photo for the image.
function nearestFigures(run, content, place, position) {
  return run.nearest
    .filter((nearest) => photoOf(run, content, place, position, nearest))
    .map((nearest) => {
      const photo = photoOf(run, content, place, position, nearest);
      const words = element("figcaption", "", `${capital(spoken(nearest.column))}: ${photo.name}`);
      words.append(element("span", "soft", likenessInWords(content, place, position, nearest)));
      return element("figure", "", "", photoImage(photo), words);
    });
}

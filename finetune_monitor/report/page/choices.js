"use strict";

// The reader's choices, kept in the URL after the #, so that links, reloads, and live pages keep them.
//
// run, step: the evaluation whose images are shown.  metric, at, group: the answer.  x, side, hidden: the curves.
// prompt, order: the images.  cell, moment: the timeline, which shows the same run.
// a, as, b, bs, pairs: the two runs, their steps, and the prompt of the pairs.

const choices = new Map();

function readChoices() {
  choices.clear();
  new URLSearchParams(location.hash.slice(1)).forEach((value, name) => choices.set(name, value));
}

// Apply some choices, null for none, and draw what depends on them.
function choose(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) {
      choices.delete(name);
    } else {
      choices.set(name, String(value));
    }
  }
  history.replaceState(null, "", `#${new URLSearchParams([...choices])}`);
  redraw();
}

// Show an evaluation in every section, including the timeline.
function chooseEvaluation(run, step) {
  choose({ run: run.id, step, moment: null });
}

function onChoice(id, name, more = {}) {
  at(id).addEventListener("change", (event) => choose({ [name]: event.target.value, ...more }));
}

// The chosen run, or the one that the page opens with.
function chosenRun(name = "run") {
  return runOf(choices.get(name)) ?? openingRun();
}

// For a sweep, the best trial opens; otherwise the best of runs that can be compared, or the first one.
function openingRun() {
  const { sweep, runs } = page.manifest;
  const metric = sweep ? answerMetric() : null;
  const points = metric ? sweep.curves[metric.name].best.flatMap((each) => each.points) : [];
  const sign = metric?.higher_is_better ? -1 : 1;
  const ordered = points.filter(({ score }) => isNumber(score)).sort((a, b) => sign * (a.score - b.score));
  const found = ordered.map(({ trial }) => runOf(sweep.trials[trial].run)).find(Boolean);
  return found ?? bestRun() ?? runs.find((run) => run.steps.length > 0) ?? runs[0];
}

// The run whose best step has the best score; none if a note says how the runs differ, or the score is not the same.
function bestRun() {
  const { runs, notes, metrics } = page.manifest;
  const scored = runs.filter(({ best }) => isNumber(best.score));
  const metric = metrics.find(({ name }) => name === scored[0]?.best.metric);
  if (notes.length > 0 || !metric || scored.some(({ best }) => best.metric !== metric.name)) return null;
  const sign = metric.higher_is_better === false ? -1 : 1;
  return scored.reduce((found, run) => (sign * run.best.score > sign * found.best.score ? run : found));
}

// The step of a run to show if none was chosen: the newest while it is in progress, then the best.
function openingStep(run) {
  const best = run.best?.step ?? null;
  return run.state === "running" || !run.steps.includes(best) ? run.steps.at(-1) : best;
}

// An index in the run's steps; -1 if there is none.
function chosenPlace(run, name = "step") {
  const step = choices.has(name) ? Number(choices.get(name)) : openingStep(run);
  const place = run.steps.indexOf(step);
  return place >= 0 ? place : run.steps.indexOf(openingStep(run));
}

// The index of the timeline's cell in the run's grid.
function chosenCell(run) {
  const wanted = Number(choices.get("cell") ?? run.cells[0]);
  return Math.max(0, run.cells.indexOf(wanted));
}

"use strict";

// What the reader has chosen, kept behind the # of the address: a link, a reload and a live page keep it.
//
// run, step: the evaluation whose images are shown.  metric, at, group: of the answer.  x, side, hidden: of the curves.
// prompt, order: of the images.  cell, moment: of the timeline, whose run is the same.
// a, as, b, bs, pairs: the two runs, their steps and the prompt of the pairs.

const choices = new Map();

function readChoices() {
  choices.clear();
  new URLSearchParams(location.hash.slice(1)).forEach((value, name) => choices.set(name, value));
}

// Take over some choices, null for none, and draw what depends on them.
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

// Show an evaluation in every section; the timeline goes to it too.
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

// Of a sweep the best trial opens, else the first run.
function openingRun() {
  const { sweep, runs } = page.manifest;
  const metric = sweep ? answerMetric() : null;
  const points = metric ? sweep.curves[metric.name].best.flatMap((each) => each.points) : [];
  const sign = metric?.higher_is_better ? -1 : 1;
  const ordered = points.filter(({ score }) => isNumber(score)).sort((a, b) => sign * (a.score - b.score));
  const found = ordered.map(({ trial }) => runOf(sweep.trials[trial].run)).find(Boolean);
  return found ?? runs.find((run) => run.steps.length > 0) ?? runs[0];
}

// Where a run is looked at when no step was chosen: while it goes on the newest, then the best.
function openingStep(run) {
  const best = run.best?.step ?? null;
  return run.state === "running" || !run.steps.includes(best) ? run.steps.at(-1) : best;
}

// A place in the run's steps; -1 where there is none.
function chosenPlace(run, name = "step") {
  const step = choices.has(name) ? Number(choices.get(name)) : openingStep(run);
  const place = run.steps.indexOf(step);
  return place >= 0 ? place : run.steps.indexOf(openingStep(run));
}

// The place of the timeline's cell in the run's grid.
function chosenCell(run) {
  const wanted = Number(choices.get("cell") ?? run.cells[0]);
  return Math.max(0, run.cells.indexOf(wanted));
}

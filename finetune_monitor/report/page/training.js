"use strict";

// The loss and the learning rate of the runs whose training loop recorded them.

const TRAINING = [
  { name: "loss", title: "Training loss", note: "of the noise prediction; it does not say how good images are", unit: "loss" },
  { name: "learning_rate", title: "Learning rate", note: "", unit: "learning rate" },
];
const SMOOTHED_OVER = 15; // the points of a moving mean

function drawTraining() {
  const keys = ["run", "step", "hidden", "x"].map((name) => choices.get(name));
  drawOnce("training", [page.manifest.written, keys, darkness.matches, page.charts], drawTrainingCharts);
}

function drawTrainingCharts() {
  const runs = shownRuns().filter((run) => run.training);
  const shown = TRAINING.filter(({ name }) => runs.some((run) => run.training[name].some(isNumber)));
  const names = JSON.stringify(shown.map(({ name }) => name));
  if (at("training").dataset.names !== names) {
    at("training").replaceChildren(...shown.map(() => element("div", "panel")));
    at("training").dataset.names = names;
  }
  shown.forEach((curve, index) => drawChart(at("training").children[index], trainingChart(curve, runs)));
}

function trainingChart({ name, title, note, unit }, runs) {
  const across = choices.get("x") === "epochs" ? "epoch" : "step";
  const isNoisy = name === "loss";
  const values = runs.flatMap((run) => (isNoisy ? movingMean(run.training[name]) : run.training[name])).filter(isNumber);
  return {
    title,
    note,
    label: `${title} of ${count(runs.length, "run")} over the ${across}s; the table below has the numbers`,
    traces: runs.flatMap((run) => trainingLines(run, name, isNoisy)),
    layout: {
      height: 200,
      xaxis: timeAxis(across, runs.flatMap(positionsOf)),
      yaxis: axis(unit, { range: isNoisy ? rangeOf(values) : undefined, rangemode: "tozero", exponentformat: "e" }),
    },
    table: () => trainingTable({ name, title }, runs),
    onPoint: ([id, step]) => chooseEvaluation(runOf(id), step),
  };
}

// The values as recorded, and for a noisy curve a moving mean over them.
function trainingLines(run, name, isNoisy) {
  const values = run.training[name];
  const x = run.training.step.map((step) => positionOfStep(run, step));
  const { color: stroke, dash } = runStyle(run);
  const texts = values.map((value, index) => lines(run.name, `step ${run.training.step[index]}`, `${spoken(name)} ${shortValue(value)}`));
  const customdata = run.training.step.map((step) => [run.id, nearestStep(run, step)]);
  const line = { x, mode: "lines", hoverinfo: "text", text: texts, customdata, line: { color: stroke, dash, width: 2 } };
  const raw = { ...line, y: values, opacity: isNoisy ? 0.3 : 1, line: { ...line.line, width: isNoisy ? 1 : 2 } };
  return isNoisy ? [raw, { ...line, y: movingMean(values), hoverinfo: "skip" }] : [raw];
}

// The mean of the points around each one; null where nothing was measured.
function movingMean(values) {
  const reach = Math.min(Math.floor(SMOOTHED_OVER / 2), Math.floor(values.length / 6));
  return values.map((value, place) => (isNumber(value) ? mean(values.slice(Math.max(0, place - reach), place + reach + 1).filter(isNumber)) : null));
}

// A training step on the chosen axis; epochs are proportional to steps.
function positionOfStep(run, step) {
  if (choices.get("x") !== "epochs") {
    return step;
  }
  const place = run.steps.findLastIndex((each, index) => each > 0 && isNumber(run.epochs?.[index]));
  return place < 0 ? null : (step * run.epochs[place]) / run.steps[place];
}

function nearestStep(run, step) {
  return run.steps.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best));
}

function trainingTable({ name, title }, runs) {
  const steps = [...new Set(runs.flatMap((run) => run.training.step))].sort((a, b) => a - b);
  const cell = (run, step) => {
    const place = run.training.step.indexOf(step);
    return place < 0 ? "" : isNumber(run.training[name][place]) ? shortValue(run.training[name][place]) : MISSING;
  };
  return table(title, ["step", ...runs.map((run) => run.name)], steps.map((step) => [String(step), ...runs.map((run) => cell(run, step))]));
}

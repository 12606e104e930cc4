"use strict";

// The runs' curves, one chart per metric on a shared axis.

const CROWDED = 30; // evaluations from which points are small
const CLOSE = 0.17; // share of a chart's height that a name and a star need above a level

// The main scores, and every other one on request or if its alarm sounds in the chosen run.
function chartMetrics() {
  const isWide = choices.get("side") === "1";
  return page.manifest.metrics.filter((metric) => metric.main || isWide || soundingInWords(chosenRun(), metric) !== "");
}

function drawCurves() {
  const { metrics, runs, written } = page.manifest;
  const hasEpochs = runs.some((run) => run.epochs?.some((epoch) => isNumber(epoch) && epoch > 0));
  at("axes").hidden = !hasEpochs;
  checkRadio("x", choices.get("x") === "epochs" ? "epochs" : "steps");
  at("side").checked = choices.get("side") === "1";
  at("side").parentElement.hidden = metrics.every((metric) => metric.main);
  const keys = ["run", "step", "hidden", "x", "side"].map((name) => choices.get(name));
  write("star", starInWords());
  at("alarm-words").hidden = !hasAlarms();
  drawOnce("curves", [written, keys, darkness.matches, page.charts], drawRunCharts);
}

// The star is in every chart, but at one metric's best step.
function starInWords() {
  const names = [...new Set(page.manifest.runs.map((run) => run.best?.metric).filter(Boolean))];
  return names.length === 1 ? `best step by ${spoken(names[0])}` : "best step by each run's own metric";
}

function drawRunCharts() {
  const metrics = chartMetrics();
  const names = JSON.stringify(metrics.map(({ name }) => name));
  if (at("charts").dataset.names !== names) {
    at("charts").replaceChildren(...metrics.map(() => element("div", "panel")));
    at("charts").dataset.names = names;
  }
  const runs = shownRuns();
  metrics.forEach((metric, index) => drawChart(at("charts").children[index], runsChart(metric, runs)));
}

function runsChart(metric, runs) {
  const chosen = chosenRun();
  const own = runs.filter((run) => run.scores[metric.name]);
  const ordered = [...own.filter((run) => run !== chosen), ...own.filter((run) => run === chosen)];
  const across = choices.get("x") === "epochs" ? "epoch" : "step";
  const smooth = own.includes(chosen) ? [smoothLine(chosen, metric)] : [];
  const bands = bandedRuns(ordered).map((run) => runBand(run, metric));
  const levels = own.includes(chosen) ? levelsOf(chosen, metric) : [];
  const alarms = own.includes(chosen) ? [alarmOf(chosen, metric)].filter(Boolean) : [];
  const range = rangeOf(valuesShown(ordered, metric, levels, alarms), endsShown(ordered, metric));
  const named = [...levels.map(([, name]) => name), ...alarms.map(() => "alarm")].join(" and ");
  return {
    title: capital(spoken(metric.name)),
    warning: own.includes(chosen) ? soundingInWords(chosen, metric) : "",
    note: named && own.length > 1 ? `${direction(metric)}; ${named} of ${shortened(chosen.name, 32)}` : direction(metric),
    label: `${spoken(metric.name)} of ${count(own.length, "run")} over the ${across}s; the table below has the numbers`,
    traces: [...bands, ...smooth, ...ordered.map((run) => runLine(run, metric, run === chosen, own.length)), ...marks(ordered, metric)],
    nothing: own.some((run) => run.scores[metric.name].mean.some(isNumber)) ? "" : "Not measured in any evaluation.",
    layout: {
      xaxis: timeAxis(across, ordered.flatMap(positionsOf)),
      yaxis: axis(metric.unit.replaceAll("-", "−"), { nticks: 6, range }),
      shapes: [...levels.map(([y]) => levelShape(y)), ...alarms.map(alarmShape)],
      annotations: [
        ...levels.map(([y, name]) => levelName(y, `${name} ${number(y, metric)}`, isUnder(chosen, metric, y, range))),
        ...alarms.map(alarmName),
        ...markedRuns(ordered).flatMap((run) => alarmMarks(run, metric)),
      ],
    },
    table: () => runsChartTable(metric, own),
    onPoint: ([id, step]) => chooseEvaluation(runOf(id), step),
  };
}

function bandedRuns(runs) {
  return runs.filter((run) => runs.length <= FEW || run === chosenRun());
}

// Every value that the chart must have room for, and the ends of the intervals.
function valuesShown(runs, metric, levels, alarms) {
  const means = runs.flatMap((run) => run.scores[metric.name].mean);
  return [...means, ...levels.map(([y]) => y), ...alarms.map(({ level }) => level)].filter(isNumber);
}

function endsShown(runs, metric) {
  return bandedRuns(runs).flatMap((run) => [...run.scores[metric.name].low, ...run.scores[metric.name].high]).filter(isNumber);
}

function runLine(run, metric, isChosen, many) {
  const texts = run.steps.map((step, place) => {
    const epoch = run.epochs?.[place];
    const when = isNumber(epoch) ? `step ${step}, epoch ${shortValue(epoch)}` : `step ${step}`;
    const best = run.best?.step === step ? `best step, by ${spoken(run.best.metric)}` : "";
    const end = place === run.steps.length - 1 ? endOf(run) : "";
    return lines(run.name, when, valueInWords(run, metric, place), ...meaningOf(run, metric, step), best, end);
  });
  const points = run.steps.map((step) => [run.id, step]);
  const trace = lineTrace(positionsOf(run), run.scores[metric.name].mean, runStyle(run), texts, points, isChosen);
  const isOneOfMany = many > SEVERAL && !isChosen;
  const size = isOneOfMany || run.steps.length > CROWDED ? 4 : trace.marker.size;
  const fills = run.steps.map((step) => (alarmWords(run, metric.name, step) ? color("poor") : trace.marker.color));
  return { ...trace, opacity: isOneOfMany ? 0.55 : 1, marker: { ...trace.marker, size, color: fills } };
}

// A mean with its interval, and whether its alarm sounds there.
function valueInWords(run, metric, place) {
  const sounds = alarmWords(run, metric.name, run.steps[place]) !== "";
  const words = estimateInWords(estimateAt(run, metric.name, place), metric);
  return sounds ? `${words}, ${levelInWords(alarmOf(run, metric))}` : words;
}

// What an alarm that sounds at a step means, in lines for a label.
function meaningOf(run, { name }, step) {
  return alarmWords(run, name, step) ? wrapped(`Alarm: ${run.alarms[name].says}`) : [];
}

// The curve that determines the best step.
function smoothLine(run, metric) {
  const line = { color: runStyle(run).color, dash: "dot", width: 1.6 };
  return { x: positionsOf(run), y: run.smoothed?.[metric.name] ?? [], mode: "lines", line, connectgaps: true, hoverinfo: "skip" };
}

function runBand(run, metric) {
  const { low, high } = run.scores[metric.name];
  return bandTrace(positionsOf(run), low, high, runStyle(run));
}

// The runs whose points are marked; with many runs, only the chosen one.
function markedRuns(runs) {
  return runs.length > SEVERAL ? runs.filter((run) => run === chosenRun()) : runs;
}

// A star at each run's best step, and a ring at the chosen evaluation.
function marks(runs, metric) {
  const made = markedRuns(runs).map((run) => {
    const place = run.steps.indexOf(run.best?.step);
    return markAt(run, metric, place, "star", 15, color("card"), runStyle(run).color);
  });
  const chosen = chosenRun();
  const ring = runs.includes(chosen) ? markAt(chosen, metric, chosenPlace(chosen), "circle-open", 18, color("ink"), color("ink")) : null;
  return [...made, ring].filter(Boolean);
}

function markAt(run, metric, place, symbol, size, stroke, fill) {
  const mean = run.scores[metric.name].mean[place];
  const found = markTrace([positionsOf(run)[place]], [mean], symbol, size, stroke, fill);
  return place >= 0 && isNumber(mean) ? { ...found, marker: { ...found.marker, line: { color: stroke, width: symbol === "star" ? 1 : 2 } } } : null;
}

// The floor, which is the untouched base model, and the ceiling, which is the photos themselves.
function levelsOf(run, metric) {
  const floor = estimateAt(run, metric.name, run.steps.indexOf(0)).mean;
  const ceiling = run.ceilings?.[metric.name]?.mean;
  return [
    [floor, "floor"],
    [ceiling, "ceiling"],
  ].filter(([y]) => isNumber(y));
}

// Whether a level is so close below the end of the run's curve that its name above the line would cover the points.
function isUnder(run, metric, y, [low, high]) {
  const last = run.scores[metric.name].mean.findLast(isNumber);
  const share = (last - y) / (high - low);
  return share > -CLOSE / 3 && share < CLOSE;
}

function runsChartTable(metric, runs) {
  const steps = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
  const cell = (run, step) => {
    const place = run.steps.indexOf(step);
    return place < 0 ? "no evaluation" : valueInWords(run, metric, place);
  };
  const rows = steps.map((step) => [String(step), ...runs.map((run) => cell(run, step))]);
  return table(`${capital(spoken(metric.name))}, ${direction(metric)}`, ["step", ...runs.map((run) => run.name)], rows);
}

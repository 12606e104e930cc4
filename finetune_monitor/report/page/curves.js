"use strict";

// The runs' curves, one chart per metric on a shared axis, with the images of the chosen evaluation below them.

function chartMetrics() {
  const isWide = choices.get("side") === "1";
  return page.manifest.metrics.filter((metric) => metric.main || isWide);
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
  drawPeek("peek");
}

// The star is in every chart, but at one metric's best step.
function starInWords() {
  const names = [...new Set(page.manifest.runs.map((run) => run.best?.metric).filter(Boolean))];
  return names.length === 1 ? `best step, by ${spoken(names[0])}` : "best step, by each run's own deciding metric";
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
  const bands = ordered.filter((run) => own.length <= FEW || run === chosen).map((run) => runBand(run, metric));
  const levels = own.includes(chosen) ? levelsOf(chosen, metric) : [];
  const alarms = own.includes(chosen) ? [alarmOf(chosen, metric)].filter(Boolean) : [];
  const named = [...levels.map(([, name]) => name), ...alarms.map(() => "alarm")].join(" and ");
  return {
    title: capital(spoken(metric.name)),
    note: named && own.length > 1 ? `${direction(metric)}; ${named} of ${shortened(chosen.name, 32)}` : direction(metric),
    label: `${spoken(metric.name)} of ${count(own.length, "run")} over the ${across}s; the table below has the numbers`,
    traces: [...bands, ...smooth, ...ordered.map((run) => runLine(run, metric, run === chosen, own.length)), ...marks(ordered, metric)],
    layout: {
      xaxis: timeAxis(across, ordered.flatMap(positionsOf)),
      yaxis: axis(),
      shapes: [...levels.map(([y]) => levelShape(y)), ...alarms.map(alarmShape)],
      annotations: [
        ...levels.map(([y, name]) => levelName(y, `${name} ${number(y, metric)}`)),
        ...alarms.map(alarmName),
        ...markedRuns(ordered).flatMap((run) => alarmMarks(run, metric)),
      ],
    },
    table: () => runsChartTable(metric, own),
    onPoint: ([id, step]) => chooseEvaluation(runOf(id), step),
  };
}

function runLine(run, metric, isChosen, many) {
  const texts = run.steps.map((step, place) => {
    const epoch = run.epochs?.[place];
    const when = isNumber(epoch) ? `step ${step}, epoch ${shortValue(epoch)}` : `step ${step}`;
    const best = run.best?.step === step ? `best step, by ${spoken(run.best.metric)}` : "";
    const end = place === run.steps.length - 1 ? endOf(run) : "";
    return lines(run.name, when, valueInWords(run, metric, place), best, end);
  });
  const points = run.steps.map((step) => [run.id, step]);
  const trace = lineTrace(positionsOf(run), run.scores[metric.name].mean, runStyle(run), texts, points, isChosen);
  const isOneOfMany = many > SEVERAL && !isChosen;
  return { ...trace, opacity: isOneOfMany ? 0.55 : 1, marker: { ...trace.marker, size: isOneOfMany ? 4 : trace.marker.size } };
}

// A mean with its interval, and whether its alarm sounds there.
function valueInWords(run, metric, place) {
  const sounds = alarmWords(run, metric.name, run.steps[place]) !== "";
  const words = estimateInWords(estimateAt(run, metric.name, place), metric);
  return sounds ? `${words}, ${levelInWords(alarmOf(run, metric))}` : words;
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

function runsChartTable(metric, runs) {
  const steps = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
  const cell = (run, step) => {
    const place = run.steps.indexOf(step);
    return place < 0 ? "no evaluation" : valueInWords(run, metric, place);
  };
  const rows = steps.map((step) => [String(step), ...runs.map((run) => cell(run, step))]);
  return table(`${capital(spoken(metric.name))}, ${direction(metric)}`, ["step", ...runs.map((run) => run.name)], rows);
}

// ---- The images of the chosen evaluation, small

function drawPeek(id) {
  const run = chosenRun();
  const place = chosenPlace(run);
  const content = imagesOf(run);
  const key = [imagesKey(run), run.steps[place], run.scores, run.name, run.weights[run.steps[place]], marksKey(content, place)];
  drawOnce(id, key, () => keeping(at(id), () => fillPeek(at(id), run, place)));
}

function fillPeek(panel, run, place) {
  const scores = page.manifest.metrics.filter((metric) => metric.main && run.scores[metric.name]);
  const words = scores.map((metric) => `${spoken(metric.name)} ${estimateInWords(estimateAt(run, metric.name, place), metric)}`);
  const title = element("p", "chart-title", "", element("strong", "", `${run.name}, step ${run.steps[place]}`));
  title.append(element("span", "soft", words.join("; ")));
  const strip = element("ul", "peek");
  run.ids.forEach((_, position) => {
    const open = button("shot", "", () => openEnlarged(run, place, run.ids.map((_, each) => each), position));
    open.dataset.key = position;
    open.append(markedImage(run, place, position));
    strip.append(element("li", "", "", open));
  });
  const weights = hasWeights(run) ? [element("p", "soft weights", weightsInWords(run, run.steps[place]))] : [];
  panel.replaceChildren(title, strip, ...weights, button("link", "With all scores, next to the photos ↓", () => goTo(at("images"))));
}

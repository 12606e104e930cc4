"use strict";

// Two scores against each other: one point a step, and the Pareto front, the steps that no other step beats in both.

const MOST_NAMED = 10; // points with their steps beside them

function drawPareto() {
  const chosen = chosenRun();
  const front = chosen.pareto;
  at("pareto").hidden = !front || front.points.length < 2;
  if (at("pareto").hidden) {
    return;
  }
  const keys = ["run", "step", "hidden"].map((name) => choices.get(name));
  drawOnce("pareto", [page.manifest.written, keys, darkness.matches, page.charts], () => drawChart(at("pareto"), paretoChart(chosen)));
}

function paretoChart(chosen) {
  const metrics = chosen.pareto.columns.map(metricOf);
  const runs = runsOnPareto(chosen);
  const [across, up] = metrics.map((metric) => `${spoken(metric.name)} ${direction(metric)}`);
  const names = metrics.map(({ name }) => spoken(name)).join(" and ");
  return {
    title: `${capital(names)} together`,
    note: "smoothed; joined: steps that no other step beats in both",
    label: `${names} of ${count(runs.length, "run")}, one point a step; the table below has the numbers`,
    traces: [...runs.flatMap((run) => [frontLine(run), stepMarks(run, metrics, run === chosen)]), ...paretoMarks(chosen)],
    layout: { xaxis: axis(across), yaxis: axis(up), annotations: frontNames(chosen), margin: { l: 48, r: 46, t: 22, b: 40 } },
    table: () => paretoTable(metrics, runs),
    onPoint: ([id, step]) => chooseEvaluation(runOf(id), step),
  };
}

// The shown runs with the same two scores; with many runs, only the chosen one.
function runsOnPareto(chosen) {
  const pair = String(chosen.pareto.columns);
  const others = shownRuns().filter((run) => run !== chosen && String(run.pareto?.columns) === pair);
  return others.length < FEW ? [...others, chosen] : [chosen];
}

function frontPoints(run) {
  const points = run.pareto.points.filter(([step]) => run.pareto.steps.includes(step));
  return points.sort((a, b) => a[1] - b[1]);
}

function frontLine(run) {
  const points = frontPoints(run);
  const { color: stroke, dash } = runStyle(run);
  return { x: points.map(([, x]) => x), y: points.map(([, , y]) => y), mode: "lines", line: { color: stroke, dash, width: 1.6 }, hoverinfo: "skip" };
}

function stepMarks(run, metrics, isChosen) {
  const { points, steps } = run.pareto;
  const { color: fill, symbol } = runStyle(run);
  const sizes = points.map(([step]) => (steps.includes(step) ? 10 : 6));
  return {
    x: points.map(([, x]) => x),
    y: points.map(([, , y]) => y),
    mode: "markers",
    marker: { color: fill, symbol, size: sizes, opacity: isChosen ? 1 : 0.55 },
    hoverinfo: "text",
    text: points.map(([step]) => lines(run.name, `step ${step}`, ...measuredInWords(run, metrics, step), run.pareto.steps.includes(step) ? "on the Pareto front" : "")),
    customdata: points.map(([step]) => [run.id, step]),
  };
}

function measuredInWords(run, metrics, step) {
  const place = run.steps.indexOf(step);
  return metrics.map((metric) => `${spoken(metric.name)} ${estimateInWords(estimateAt(run, metric.name, place), metric)}`);
}

// A star at the best step, and a ring at the chosen evaluation, as in the curves.
function paretoMarks(run) {
  const at = (step) => run.pareto.points.find(([each]) => each === step);
  const [best, chosen] = [at(run.best?.step), at(run.steps[chosenPlace(run)])];
  return [
    best && markTrace([best[1]], [best[2]], "star", 15, color("card"), runStyle(run).color),
    chosen && markTrace([chosen[1]], [chosen[2]], "circle-open", 19, color("ink"), color("ink")),
  ].filter(Boolean);
}

function frontNames(run) {
  const font = { size: 11, color: color("soft") };
  const points = frontPoints(run);
  const named = [points[0]?.[0], points.at(-1)?.[0], run.best?.step, run.steps[chosenPlace(run)]];
  const shown = points.filter(([step]) => points.length <= MOST_NAMED || named.includes(step));
  return shown.map(([step, x, y]) => ({ x, y, text: String(step), showarrow: false, xanchor: "left", xshift: 5, yshift: 9, font }));
}

function paretoTable(metrics, runs) {
  const head = ["step", ...metrics.map(({ name }) => spoken(name)), "Pareto front", "weights"];
  const rows = runs.flatMap((run) =>
    run.pareto.points.map(([step]) => {
      const scores = metrics.map((metric) => withInterval(estimateAt(run, metric.name, run.steps.indexOf(step)), metric));
      const name = runs.length > 1 ? `${run.name}, ${step}` : String(step);
      return [name, ...scores, run.pareto.steps.includes(step) ? "yes" : "no", run.weights[step]?.place ?? "none"];
    }),
  );
  return table("As measured", head, rows);
}

"use strict";

// The answer of a sweep: its verdicts, the metric against the axis and against the steps, and its trials.

const MANY = 6; // values with one trial each are a search, whose dots stand alone

// The metric that the answer is about; null where nothing was measured.
function answerMetric() {
  const names = Object.keys(page.manifest.sweep.curves);
  const wanted = choices.get("metric");
  const name = names.includes(wanted) ? wanted : names[0];
  return name === undefined ? null : metricOf(name);
}

function answerAt() {
  return choices.get("at") === "last" ? "last" : "best";
}

function drawAnswer() {
  const { sweep, written } = page.manifest;
  at("answer").hidden = at("to-answer").hidden = !sweep;
  if (!sweep) {
    return;
  }
  const metric = answerMetric();
  at("answer").classList.toggle("empty", metric === null);
  drawOnce("answer", [written, metric, answerAt()], () => drawAnswerWords(sweep, metric));
  drawOnce("trials", written, () => drawTrials(sweep));
  if (metric) {
    const key = [written, metric.name, answerAt(), choices.get("run"), choices.get("step"), darkness.matches];
    drawOnce("answer-charts", [key, page.charts], () => drawAnswerCharts(sweep, metric));
    drawPeek("answer-peek");
    drawLadder(sweep);
  }
}

function drawAnswerWords(sweep, metric) {
  write("answer-title", sweep.axis ? `How ${questionOf(sweep.axis)}` : sweep.name);
  const over = { image: "the images of each run", seed: "training seeds", person: "people" }[sweep.unit] ?? sweep.unit;
  write("answer-units", `Over ${sweep.units}; the intervals are over ${over}.`);
  const options = Object.keys(sweep.curves).map((name) => [name, spoken(name)]);
  fillSelect(at("answer-metric"), options, metric?.name ?? "");
  checkRadio("at", answerAt());
  const verdicts = sweep.verdicts.filter((each) => each.metric === metric?.name && each.at === answerAt());
  at("verdicts").replaceChildren(...verdicts.map((verdict) => verdictCard(verdict, sweep)));
  at("answer-notes").replaceChildren(...sweep.notes.map((note) => element("li", "", note)));
}

function questionOf({ label }) {
  return /^(the )?number of /.test(label) ? `many ${label.replace(/^(the )?number of /, "")}?` : `${label} matters`;
}

const TONES = { rise: "↗", fall: "↘", none: "→", unknown: "?" };

function verdictCard({ text, tone, group }, { groups }) {
  const card = element("p", `verdict ${tone}`);
  const sign = element("span", "sign", TONES[tone] ?? "");
  sign.setAttribute("aria-hidden", "true");
  const of = groups.length > 1 ? element("span", "soft", `${groups[group]} `) : "";
  card.append(sign, element("span", "", "", of, capital(text)));
  return card;
}

function checkRadio(name, value) {
  document.querySelectorAll(`input[name="${name}"]`).forEach((input) => (input.checked = input.value === value));
}

function drawAnswerCharts(sweep, metric) {
  at("answer-values").hidden = !sweep.axis;
  if (sweep.axis) {
    drawChart(at("answer-values"), valuesChart(sweep, metric));
  }
  drawChart(at("answer-steps"), stepsChart(sweep, metric));
}

// A trial's evaluation that the answer counts.
function openTrial(number) {
  const trial = page.manifest.sweep.trials[number];
  const run = runOf(trial.run);
  if (run) {
    chooseEvaluation(run, (answerAt() === "best" ? trial.best_step : trial.step) ?? openingStep(run));
  }
}

// ---- The metric against the axis

function valuesChart(sweep, metric) {
  const entries = sweep.curves[metric.name][answerAt()];
  const place = placesOf(sweep.axis);
  const styles = sweep.groups.map((_, group) => seriesStyle(group));
  const isSearch = entries.length > MANY && entries.every(({ points }) => points.length < 2);
  const traces = sweep.groups.flatMap((_, group) => {
    const own = entries.filter((entry) => entry.group === group);
    const means = isSearch ? [] : [meansTrace(own, place, styles[group], sweep, metric)];
    return [dotsTrace(own, place, styles[group], sweep, metric, isSearch), ...means];
  });
  const { label } = sweep.axis;
  return {
    title: `${capital(spoken(metric.name))} against ${label}`,
    note: `${answerAt()} step of each run; ${direction(metric)}`,
    label: `${spoken(metric.name)} against ${label}; the table below has the numbers`,
    traces: [...traces, ...chosenDot(entries, place, sweep)],
    layout: { xaxis: valuesAxis(sweep.axis), yaxis: axis(spoken(metric.name)), ...legendOf(sweep.groups) },
    table: () => valuesTable(entries, sweep, metric),
    onPoint: openTrial,
  };
}

// Where a value stands across: itself, or its place where the values are no numbers.
function placesOf({ values, scale }) {
  return (value) => (scale === "category" ? values.indexOf(value) : value);
}

function valuesAxis({ values, scale, label }) {
  const ticks = values.length > 12 ? {} : { tickvals: values.map(placesOf({ values, scale })), ticktext: values.map((value) => plain(shortValue(value))) };
  const range = scale === "category" ? { range: [-0.5, values.length - 0.5] } : {};
  return axis(label, { type: scale === "log" ? "log" : "linear", ...range, ...ticks });
}

function legendOf(groups) {
  return groups.length < 2 ? {} : { showlegend: true, legend: { orientation: "h", y: 1.12, x: 0 }, height: HEIGHT + 30 };
}

function meansTrace(entries, place, style, sweep, metric) {
  const own = entries.filter(({ mean }) => isNumber(mean));
  const texts = own.map((entry) =>
    lines(`${sweep.axis.label}: ${shortValue(entry.value)}`, sweep.groups[entry.group], withInterval(entry, metric), count(entry.units, "run")),
  );
  const middles = own.map(middleTrial);
  const trace = lineTrace(own.map(({ value }) => place(value)), own.map(({ mean }) => mean), style, texts, middles, true);
  const arms = own.map(({ mean, low, high }) => (isNumber(low) && isNumber(high) ? [high - mean, mean - low] : [0, 0]));
  const [array, arrayminus] = [0, 1].map((side) => arms.map((arm) => arm[side]));
  const error_y = { type: "data", symmetric: false, array, arrayminus, color: style.colour, thickness: 1.6, width: 6 };
  return { ...trace, error_y, name: plain(sweep.groups[own[0]?.group ?? 0] ?? "") };
}

// The trial nearest to the mean stands for it.
function middleTrial({ mean, points }) {
  const ordered = points.filter(({ score }) => isNumber(score)).sort((a, b) => Math.abs(a.score - mean) - Math.abs(b.score - mean));
  return ordered[0]?.trial ?? null;
}

function dotsTrace(entries, place, style, sweep, metric, isMain) {
  const dots = entries.flatMap(({ value, points }) => points.map((point) => ({ value, ...point })));
  const texts = dots.map(({ trial, score }) => lines(trialName(sweep.trials[trial]), number(score, metric)));
  const marker = { color: style.colour, size: isMain ? 9 : 7, symbol: isMain ? style.symbol : `${style.symbol}-open` };
  const [x, y] = [dots.map(({ value }) => place(value)), dots.map(({ score }) => score)];
  const customdata = dots.map(({ trial }) => trial);
  return { x, y, mode: "markers", marker, hoverinfo: "text", text: texts, customdata, showlegend: false };
}

function trialName({ name, person, seed }) {
  const of = [person, isNumber(seed) ? `seed ${seed}` : null].filter((part) => part !== null && part !== undefined);
  return of.length ? `${name} (${of.join(", ")})` : name;
}

// A ring around the dot of the chosen run.
function chosenDot(entries, place, sweep) {
  const run = chosenRun();
  const all = entries.flatMap(({ value, points }) => points.map((point) => ({ value, ...point })));
  const own = all.filter(({ trial }) => sweep.trials[trial].run === run?.id);
  const ring = markTrace(own.map(({ value }) => place(value)), own.map(({ score }) => score), "circle-open", 15, colour("ink"), colour("ink"));
  return own.length ? [{ ...ring, showlegend: false }] : [];
}

function valuesTable(entries, sweep, metric) {
  const heads = [sweep.axis.label, ...(sweep.groups.length > 1 ? ["group"] : []), "mean [interval]", "runs", "of each run"];
  const rows = entries.map((entry) => [
    shortValue(entry.value),
    ...(sweep.groups.length > 1 ? [sweep.groups[entry.group]] : []),
    withInterval(entry, metric),
    String(entry.units),
    entry.points.map(({ score }) => number(score, metric)).join(", "),
  ]);
  return table(`${capital(spoken(metric.name))}, ${answerAt()} step`, heads, rows);
}

// ---- The metric against the steps

function stepsChart(sweep, metric) {
  const curves = sweep.curves[metric.name].steps;
  const isFew = curves.length <= FEW;
  const traces = curves.flatMap((curve) => {
    const style = curveStyle(curve, sweep);
    const texts = curve.steps.map((step, place) => lines(curveName(curve, sweep), `step ${step}`, withInterval(momentOf(curve, place), metric)));
    const points = curve.steps.map((step) => [curve.value, curve.group, step]);
    const line = { ...lineTrace(curve.steps, curve.mean, style, texts, points, false), name: plain(curveName(curve, sweep)) };
    const band = isFew ? [{ ...bandTrace(curve.steps, curve.low, curve.high, style), showlegend: false }] : [];
    return [...band, line];
  });
  return {
    title: `${capital(spoken(metric.name))} against the steps`,
    note: `one line for each ${sweep.axis ? sweep.axis.label.replace(/^the /, "") : "group"}; ${direction(metric)}`,
    label: `${spoken(metric.name)} against the steps; the table below has the numbers`,
    traces,
    layout: { ...legendOf(curves.length > 12 ? [] : curves), xaxis: axis("step"), yaxis: axis(spoken(metric.name)) },
    table: () => stepsTable(curves, sweep, metric),
    onPoint: ([value, group, step]) => openMoment(value, group, step),
  };
}

function momentOf({ mean, low, high }, place) {
  return { mean: mean[place], low: low[place], high: high[place] };
}

function curveStyle({ value, group }, { axis: along }) {
  return along ? valueStyle(Math.max(0, along.values.indexOf(value)), along.values.length, group) : seriesStyle(group);
}

function curveName({ value, group }, { axis: along, groups }) {
  return [along ? shortValue(value) : "", groups[group]].filter(Boolean).join(", ") || "all runs";
}

// Of the trials of a value the one of the same person and seed as the run that is shown.
function openMoment(value, group, step) {
  const { trials } = page.manifest.sweep;
  const shown = trials.find((trial) => trial.run === chosenRun()?.id);
  const own = trials.filter((trial) => trial.value === value && (trial.group ?? 0) === group && runOf(trial.run)?.steps.includes(step));
  const same = own.find((trial) => trial.person === shown?.person && trial.seed === shown?.seed) ?? own[0];
  if (same) {
    chooseEvaluation(runOf(same.run), step);
  }
}

function stepsTable(curves, sweep, metric) {
  const steps = [...new Set(curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
  const rows = steps.map((step) => [String(step), ...curves.map((curve) => stepCell(curve, step, metric))]);
  return table(capital(spoken(metric.name)), ["step", ...curves.map((curve) => curveName(curve, sweep))], rows);
}

function stepCell(curve, step, metric) {
  const place = curve.steps.indexOf(step);
  return place < 0 ? "no evaluation" : withInterval(momentOf(curve, place), metric);
}

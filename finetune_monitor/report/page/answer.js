"use strict";

// The answer of a sweep: its verdicts, the metric against the axis and over the steps, and its trials.

// The metric of the answer; null if nothing was measured.
function answerMetric() {
  const names = Object.keys(page.manifest.sweep.curves);
  const wanted = choices.get("metric");
  const name = names.includes(wanted) ? wanted : names[0];
  return name === undefined ? null : metricOf(name);
}

function answerAt() {
  return choices.get("at") === "last" ? "last" : "best";
}

// The shown combination of the other axes: that of the chosen run until the reader chooses one.
function answerGroup() {
  const { groups, trials } = page.manifest.sweep;
  const wanted = groups.indexOf(choices.get("group"));
  const own = trials.find((trial) => trial.run === chosenRun().id)?.group ?? 0;
  return wanted >= 0 ? wanted : own;
}

// The scores against the axis in the shown group.
function answerEntries(sweep, metric) {
  return sweep.curves[metric.name][answerAt()].filter(({ group }) => group === answerGroup());
}

// The step of a trial that the answer uses, if there is one; otherwise the step at which its run is shown.
function stepOf(trial) {
  const { sweep } = page.manifest;
  const entries = sweep.curves[answerMetric()?.name]?.[answerAt()] ?? [];
  const points = entries.flatMap((entry) => entry.points);
  return points.find((point) => sweep.trials[point.trial] === trial)?.step ?? openingStep(runOf(trial.run));
}

function drawAnswer() {
  const { sweep, written } = page.manifest;
  at("answer").hidden = at("to-answer").hidden = !sweep;
  if (!sweep) {
    return;
  }
  const metric = answerMetric();
  at("answer").classList.toggle("empty", metric === null);
  drawOnce("answer", [written, metric, answerAt(), answerGroup()], () => drawAnswerWords(sweep, metric));
  drawOnce("trials", written, () => drawTrials(sweep));
  if (metric) {
    const key = [written, metric.name, answerAt(), answerGroup(), choices.get("run"), choices.get("step"), darkness.matches];
    drawOnce("answer-charts", [key, page.charts], () => drawAnswerCharts(sweep, metric));
    drawPeek("answer-peek");
    drawLadder(sweep);
  }
}

function drawAnswerWords(sweep, metric) {
  write("answer-title", metric ? titleOf(sweep.axis, metric) : sweep.name);
  write("answer-units", `The intervals are over ${sweep.units}.`);
  const options = Object.keys(sweep.curves).map((name) => [name, spoken(name)]);
  fillSelect(at("answer-metric"), options, metric?.name ?? "");
  fillSelect(at("answer-group"), sweep.groups.map((name) => [name, name]), sweep.groups[answerGroup()]);
  at("answer-group").parentElement.hidden = sweep.groups.length < 2;
  checkRadio("at", answerAt());
  const isShown = (each) => each.metric === metric?.name && each.at === answerAt() && each.group === answerGroup();
  const verdicts = sweep.verdicts.filter(isShown);
  at("verdicts").replaceChildren(...verdicts.map((verdict) => verdictCard(verdict, sweep)));
  at("answer-notes").replaceChildren(...sweep.notes.map((note) => element("li", "", note)));
}

function titleOf({ key, label }, metric) {
  if (key === "data.instance_count") {
    return "How many photos?";
  }
  return key ? `${capital(spoken(metric.name))} by ${label}` : "All trials together";
}

const TONES = { rise: "↗", fall: "↘", none: "→", unknown: "?" };

const OPPOSITE = { rise: "fall", fall: "rise" };

// The class that colors a change: a fall is a gain if lower is better, and neither if no direction is.
function moodOf(tone, { higher_is_better: isHigherBetter }) {
  if (isHigherBetter === null) {
    return "none";
  }
  return isHigherBetter ? tone : (OPPOSITE[tone] ?? tone);
}

function verdictCard({ text, tone, group, metric }, { groups, axis: along, search }) {
  const isBest = tone === "rise" && (search || along.scale === "category"); // one of several is best, but nothing rises
  const card = element("p", `verdict ${isBest ? tone : moodOf(tone, metricOf(metric))}`);
  const sign = element("span", "sign", isBest ? "★" : (TONES[tone] ?? ""));
  sign.setAttribute("aria-hidden", "true");
  const of = groups.length > 1 ? element("span", "soft", `${groups[group]}: `) : "";
  card.append(sign, element("span", "", "", of, capital(text)));
  return card;
}

function checkRadio(name, value) {
  document.querySelectorAll(`input[name="${name}"]`).forEach((input) => (input.checked = input.value === value));
}

function drawAnswerCharts(sweep, metric) {
  at("answer-values").hidden = !sweep.axis.key;
  if (sweep.axis.key) {
    drawChart(at("answer-values"), valuesChart(sweep, metric));
  }
  drawChart(at("answer-steps"), stepsChart(sweep, metric));
}

function openTrial(trial, step = stepOf(trial)) {
  const run = runOf(trial.run);
  if (run) {
    chooseEvaluation(run, step);
  }
}

// ---- The metric against the axis

function valuesChart(sweep, metric) {
  const entries = answerEntries(sweep, metric);
  const place = placesOf(sweep.axis);
  const style = seriesStyle(answerGroup());
  const means = sweep.search ? [] : [meansTrace(entries, place, style, sweep, metric)];
  const { label } = sweep.axis;
  return {
    title: `${capital(spoken(metric.name))} against ${label}`,
    note: `${answerAt()} step of each run; ${direction(metric)}`,
    label: `${spoken(metric.name)} against ${label}; the table below has the numbers`,
    traces: [dotsTrace(entries, place, style, sweep, metric), ...means, ...chosenDot(entries, place, sweep)],
    layout: { xaxis: valuesAxis(sweep), yaxis: axis(spoken(metric.name)) },
    table: () => valuesTable(entries, sweep, metric),
    onPoint: ([trial, step]) => openTrial(sweep.trials[trial], step),
  };
}

// The x-position of a value: the value itself, or its index if the values are not numbers.
function placesOf({ values, scale }) {
  return (value) => (scale === "category" ? values.indexOf(value) : value);
}

function valuesAxis({ axis: { values, scale, label }, search }) {
  const place = placesOf({ values, scale });
  if (scale === "category") {
    const ticktext = values.map((value) => plain(shortened(valueText(value, { values, scale }), LONGEST_TICK)));
    return axis(label, { tickvals: values.map(place), ticktext, ticklabeloverflow: "allow", range: [-0.5, values.length - 0.5] });
  }
  const ticks = scale === "log" && search ? roundTicks(values) : values.length > 12 ? [] : values;
  const shown = ticks.length ? { tickvals: ticks, ticktext: ticks.map(shortValue) } : { exponentformat: "e" };
  return axis(label, { type: scale, rangemode: values[0] >= 0 ? "nonnegative" : "normal", ...shown });
}

// 1, 2, and 5 of each decade in range, or only 1 if those are too many; the ends if they are too few.
function roundTicks(values) {
  const [least, greatest] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [least, greatest].map((value) => Math.floor(Math.log10(value)));
  const decades = Array.from({ length: last - first + 1 }, (_, more) => first + more);
  const within = (digits) =>
    decades.flatMap((decade) => digits.map((digit) => Number(`${digit}e${decade}`))).filter((tick) => tick >= least && tick <= greatest);
  const found = within([1, 2, 5]).length > 8 ? within([1]) : within([1, 2, 5]);
  return found.length > 1 ? found : [least, greatest];
}

// A value's name in the charts: paths without their common folder.
function valueText(value, { values, scale }) {
  if (scale !== "category" || values.length < 2) {
    return shortValue(value);
  }
  const [first, ...others] = values.map(String);
  const folders = first.split("/").slice(0, -1).map((_, depth, all) => `${all.slice(0, depth + 1).join("/")}/`);
  const shared = folders.filter((folder) => others.every((other) => other.startsWith(folder))).at(-1) ?? "";
  return String(value).slice(shared.length);
}

function meansTrace(entries, place, style, sweep, metric) {
  const own = entries.filter(({ mean }) => isNumber(mean));
  const texts = own.map((entry) =>
    lines(`${sweep.axis.label}: ${shortValue(entry.value)}`, withInterval(entry, metric), count(entry.points.length, "run")),
  );
  const middles = own.map(middleTrial);
  const trace = lineTrace(own.map(({ value }) => place(value)), own.map(({ mean }) => mean), style, texts, middles, true);
  const arms = own.map(({ mean, low, high }) => (isNumber(low) && isNumber(high) ? [high - mean, mean - low] : [0, 0]));
  const [array, arrayminus] = [0, 1].map((side) => arms.map((arm) => arm[side]));
  const error_y = { type: "data", symmetric: false, array, arrayminus, color: style.color, thickness: 1.6, width: 6 };
  const isOrdered = sweep.axis.scale !== "category"; // there is nothing between two names
  return { ...trace, mode: isOrdered ? trace.mode : "markers", error_y };
}

// The trial nearest to the mean represents it.
function middleTrial({ mean, points }) {
  const ordered = points.filter(({ score }) => isNumber(score)).sort((a, b) => Math.abs(a.score - mean) - Math.abs(b.score - mean));
  return ordered.length ? [ordered[0].trial, ordered[0].step] : null;
}

function dotsTrace(entries, place, style, sweep, metric) {
  const dots = entries.flatMap(({ value, points }) => points.map((point) => ({ value, ...point })));
  const texts = dots.map(({ trial, score, step }) => lines(...trialTexts(sweep, sweep.trials[trial]), `step ${step}`, number(score, metric)));
  const { search } = sweep;
  const marker = { color: style.color, size: search ? 9 : 7, symbol: search ? style.symbol : `${style.symbol}-open` };
  const [x, y] = [dots.map(({ value }) => place(value)), dots.map(({ score }) => score)];
  const customdata = dots.map(({ trial, step }) => [trial, step]);
  return { x, y, mode: "markers", marker, hoverinfo: "text", text: texts, customdata };
}

// A trial's name and, for a search, what was chosen for it, one line each.
function trialTexts({ search }, trial) {
  const chosen = search ? Object.entries(trial.settings).map(([key, value]) => `${briefKey(key)}: ${shortValue(value)}`) : [];
  return [trialName(trial), ...chosen];
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
  const ring = markTrace(own.map(({ value }) => place(value)), own.map(({ score }) => score), "circle-open", 15, color("ink"), color("ink"));
  return own.length ? [ring] : [];
}

function valuesTable(entries, sweep, metric) {
  const heads = [sweep.axis.label, "mean [interval]", "runs", "of each run"];
  const rows = entries.map((entry) => [
    shortValue(entry.value),
    withInterval(entry, metric),
    String(entry.points.length),
    entry.points.map(({ score }) => number(score, metric)).join(", "),
  ]);
  return table(`${capital(spoken(metric.name))}, ${answerAt()} step`, heads, rows);
}

// ---- The metric over the steps

function stepsChart(sweep, metric) {
  const curves = sweep.curves[metric.name].steps.filter(({ group }) => group === answerGroup());
  const isFew = curves.length <= FEW;
  const names = curves.map((curve) => shortened(curveName(curve, sweep), LONGEST_NAME));
  const traces = curves.flatMap((curve, index) => {
    const style = valueStyle(sweep.axis.values.indexOf(curve.value), sweep.axis.values.length, curve.group);
    const own = trialsOf(sweep, curve);
    const title = own.length === 1 ? trialTexts(sweep, own[0]) : [curveName(curve, sweep)];
    const texts = curve.steps.map((step, place) => lines(...title, `step ${step}`, withInterval(momentOf(curve, place), metric)));
    const points = curve.steps.map((step) => [curve.value, curve.group, step]);
    const line = { ...lineTrace(curve.steps, curve.mean, style, texts, points, false), name: plain(names[index]) };
    const band = isFew ? [{ ...bandTrace(curve.steps, curve.low, curve.high, style), showlegend: false }] : [];
    return [...band, line];
  });
  return {
    title: `${capital(spoken(metric.name))} over the steps`,
    note: `${sweep.axis.key ? `one line for each ${sweep.search ? "trial" : sweep.axis.label}; ` : ""}${direction(metric)}`,
    label: `${spoken(metric.name)} over the steps; the table below has the numbers`,
    traces,
    layout: {
      ...(curves.length > 12 || curves.length < 2 ? {} : legendBelow(names, at("answer-steps").clientWidth)),
      xaxis: timeAxis("step", curves.flatMap(({ steps }) => steps)),
      yaxis: axis(spoken(metric.name)),
    },
    table: () => stepsTable(curves, sweep, metric),
    onPoint: ([value, group, step]) => openMoment(value, group, step),
  };
}

function momentOf({ mean, low, high }, place) {
  return { mean: mean[place], low: low[place], high: high[place] };
}

function curveName({ value }, { axis: along }) {
  return valueText(value, along);
}

function trialsOf({ trials }, { value, group }) {
  return trials.filter((trial) => trial.value === value && (trial.group ?? 0) === group);
}

// Among the trials of a value, the one with the same person and seed as the shown run.
function openMoment(value, group, step) {
  const { sweep } = page.manifest;
  const shown = sweep.trials.find((trial) => trial.run === chosenRun().id);
  const own = trialsOf(sweep, { value, group }).filter((trial) => runOf(trial.run)?.steps.includes(step));
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

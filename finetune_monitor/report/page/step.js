"use strict";

// The images of the chosen evaluation beside the curves: a row per prompt and a column per seed.

const MOST_COLUMNS = 8;

function drawStep() {
  const run = chosenRun();
  const place = chosenPlace(run);
  at("step-slider").max = run.steps.length - 1;
  at("step-slider").value = place;
  at("step-slider").setAttribute("aria-valuetext", stepInWords(run, place));
  at("step-earlier").disabled = place <= 0;
  at("step-later").disabled = place >= run.steps.length - 1;
  drawPeek("peek");
}

function stepInWords(run, place) {
  const step = run.steps[place];
  return `step ${step}${run.best?.step === step ? " ★ best" : step === 0 ? " (base model)" : ""}`;
}

function drawPeek(id) {
  const run = chosenRun();
  const place = chosenPlace(run);
  const content = imagesOf(run);
  const step = run.steps[place];
  const key = [imagesKey(run), step, run.scores, run.alarms, run.name, run.best, run.weights[step], content?.full?.[step], marksKey(content, place)];
  drawOnce(id, key, () => keeping(at(id), () => fillPeek(at(id), run, place)));
}

function fillPeek(panel, run, place) {
  const words = decidingMetrics(run).map((metric) => `${spoken(metric.name)} ${estimateInWords(estimateAt(run, metric.name, place), metric)}`);
  const several = page.manifest.runs.length > 1 ? `${run.name}, ` : "";
  const title = element("p", "step-title", "", element("strong", "", several + (several ? stepInWords(run, place) : capital(stepInWords(run, place)))));
  title.append(element("span", "soft", words.join("; ")));
  const alarms = Object.keys(run.alarms).map((name) => alarmWords(run, name, run.steps[place])).filter(Boolean);
  const said = alarms.map((text) => element("p", "chart-alarm", `Alarm: ${text}.`));
  panel.replaceChildren(title, ...said, element("div", "matrix-box", "", matrix(run, place)), ...fullQuality(run, place), stepLinks(run, place));
}

// The images of a step that was rendered at full quality, too; its scores are not part of any curve.
function fullQuality(run, place) {
  const step = run.steps[place];
  const found = imagesOf(run)?.full?.[step];
  if (!found) {
    return [];
  }
  const means = decidingMetrics(run).filter(({ name }) => found.scores[name]);
  const words = means.map((metric) => `${spoken(metric.name)} ${estimateInWords(found.scores[metric.name], metric)}`);
  const title = element("p", "step-title", "", element("strong", "", "At full quality"), element("span", "soft", [...words, found.sampling].join("; ")));
  const shots = run.ids.map((_, position) => position).filter((position) => !found.absent.includes(position));
  const images = shots.map((position) => thumbnail(thumbnailOf(run, step, position, "-full"), `${cellName(run, position)}, at full quality`));
  return [element("div", "full-quality", "", title, element("div", "full-images", "", ...images))];
}

// The one or two metrics by which steps are chosen.
function decidingMetrics(run) {
  const names = run.pareto?.columns ?? [run.best?.metric];
  const found = metricsOf(run).filter(({ name }) => names.includes(name));
  return found.length ? found : metricsOf(run).slice(0, 1);
}

// Prompts in the order of the grid, each with the positions of its images.
function rowsOf(run) {
  const rows = new Map();
  run.ids.forEach((_, position) => {
    const { prompt } = cellAt(run, position);
    rows.set(prompt, [...(rows.get(prompt) ?? []), position]);
  });
  return [...rows];
}

// The seeds that all prompts share, in order; none if each prompt has its own.
function sharedSeeds(run, rows) {
  const seeds = rows.map(([, positions]) => positions.map((position) => cellAt(run, position).seed));
  return seeds.every((own) => String(own) === String(seeds[0])) && seeds[0].length <= MOST_COLUMNS ? seeds[0] : [];
}

function matrix(run, place) {
  const rows = rowsOf(run);
  const columns = Math.min(MOST_COLUMNS, Math.max(...rows.map(([, positions]) => positions.length)));
  const lines = rows.reduce((sum, [, positions]) => sum + Math.ceil(positions.length / columns), 0);
  const seeds = sharedSeeds(run, rows);
  const made = element("div", "matrix");
  made.style.setProperty("--columns", columns);
  made.style.setProperty("--lines", lines);
  if (seeds.length > 1) {
    made.append(element("span", "corner"), ...seeds.map((seed) => element("span", "seed", `seed ${seed}`)));
  }
  const order = rows.flatMap(([, positions]) => positions);
  for (const [prompt, positions] of rows) {
    const label = element("span", "prompt", "", element("span", "", prompt));
    label.title = prompt;
    label.style.setProperty("--span", Math.ceil(positions.length / columns));
    made.append(label, ...positions.map((position) => matrixShot(run, place, position, order)));
  }
  return made;
}

function matrixShot(run, place, position, order) {
  const open = button("shot", "", () => openEnlarged(run, place, order, position));
  open.dataset.key = position;
  open.title = cellName(run, position);
  open.append(markedImage(run, place, position));
  return open;
}

function stepLinks(run, place) {
  const step = run.steps[place];
  const foot = element("p", "step-links");
  if (hasWeights(run)) {
    foot.append(element("span", "soft weights", weightsInWords(run, step)));
  }
  if (run.weights[step]) {
    foot.append(copyButton(pathOf(run, run.weights[step].place), "Copy the path"), button("link", "How to load them ↓", () => goTo(at("weights"))));
  }
  foot.append(button("link", "All scores of each image ↓", () => goTo(at("images"))));
  return foot;
}

function setUpStep() {
  at("step-slider").addEventListener("input", ({ target }) => chooseEvaluation(chosenRun(), chosenRun().steps[Number(target.value)]));
  at("step-earlier").addEventListener("click", () => stepBy(-1));
  at("step-later").addEventListener("click", () => stepBy(1));
}

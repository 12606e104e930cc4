"use strict";

// The images of a run and their captions.

const SIDE = 256; // longest side of a thumbnail, in pixels

// Nothing is requested before it is known which images exist.
function cellImage(run, place, position) {
  const content = imagesOf(run);
  if (!content && !page.failed.has(run.id)) {
    return noImage("");
  }
  if (isAbsent(content, place, position)) {
    return noImage("no image");
  }
  const { prompt, seed } = cellAt(run, position);
  return thumbnail(thumbnailOf(run, run.steps[place], position), `${prompt}, seed ${seed}, step ${run.steps[place]}`);
}

function thumbnail(address, words) {
  const image = element("img");
  Object.assign(image, { loading: "lazy", decoding: "async", width: SIDE, height: SIDE, alt: words });
  image.addEventListener("error", () => image.replaceWith(noImage("image not found")));
  image.src = address;
  return image;
}

function noImage(text) {
  return element("span", "no-image", text);
}

// An image with its marks.
function markedImage(run, place, position) {
  return element("span", "framed", "", cellImage(run, place, position), ...badges(run, imagesOf(run), place, position));
}

// What the marks of an evaluation's images depend on.
function marksKey(content, place) {
  return [content?.absent[place], Object.values(content?.scores ?? {}).map((rows) => rows[place]?.map((score) => (score === null ? null : score === 0)))];
}

function cellName(run, position) {
  const { prompt, seed } = cellAt(run, position);
  return `${prompt}, seed ${seed}`;
}

const measured = new WeakMap();

// The metrics that score this image: not those that cover others, or found nothing in any image.
function imageMetrics(run, content, position) {
  if (!measured.has(content)) {
    measured.set(content, new Set(Object.keys(content.scores).filter((name) => content.scores[name].some((row) => row.some(isNumber)))));
  }
  return metricsOf(run).filter((metric) => covers(run, metric, position) && measured.get(content).has(metric.name));
}

// The main ones of them; a probe has none, so all.
function mainImageMetrics(run, content, position) {
  const found = imageMetrics(run, content, position);
  const main = found.filter((metric) => metric.main);
  return main.length ? main : found;
}

// [metric, score] of an image in words, for a list of terms.
function scorePairs(run, content, place, position, metrics = imageMetrics(run, content, position)) {
  return metrics.map((metric) => [spoken(metric.name), number(scoreOf(content, metric.name, place, position), metric)]);
}

// The scores shown with an image: the main ones, and the one that the images are ordered by.
function briefPairs(run, content, place, position, order) {
  const main = mainImageMetrics(run, content, position);
  const shown = imageMetrics(run, content, position).filter((metric) => main.includes(metric) || metric.name === order);
  return scorePairs(run, content, place, position, shown);
}

// The marks on an image: what a metric did not find in it, or that nothing is known.
function badges(run, content, place, position) {
  if (!content || isAbsent(content, place, position)) {
    return [];
  }
  const made = [];
  made.push(...marksOf(run, content, place, position).map((words) => element("span", "badge", words)));
  if (metricsOf(run).every(({ name }) => scoreOf(content, name, place, position) === null)) {
    made.push(element("span", "badge", "not measured"));
  }
  return made;
}

function promptsOf(run) {
  return [...new Set(run.cells.map((cell) => page.manifest.cells[cell].prompt))];
}

// The options of a prompt select; the values are the prompts themselves, so that links keep them.
function promptOptions(prompts) {
  return [["", prompts.length === 1 ? "the only prompt" : `all prompts (${prompts.length})`], ...prompts.map((prompt) => [`=${prompt}`, prompt])];
}

function wantedPrompt(name, prompts) {
  const wanted = choices.get(name) ?? "";
  return prompts.includes(wanted.slice(1)) ? wanted.slice(1) : null;
}

function runOptions() {
  return page.manifest.runs.filter((run) => run.steps.length > 0).map((run) => [run.id, run.name]);
}

function stepOptions(run) {
  return run.steps.map((step) => [step, `${step}${run.best?.step === step ? " ★ best" : step === 0 ? " (base model)" : ""}`]);
}

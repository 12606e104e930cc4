"use strict";

// The data files next to the page: the manifest with every run, and each run's images, loaded when first needed.

// images: {version, content} of each loaded run.  loading: the version that was last requested.
// renewed: when a run was restarted, which puts different images at the same URLs.
const page = { manifest: null, arrived: null, images: new Map(), loading: new Map(), failed: new Map(), renewed: new Map() };

// The functions that the data scripts call.
const finetuneMonitor = {
  manifest(manifest) {
    page.manifest = manifest;
  },
  images(id, content) {
    page.arrived = { id, content };
  },
};

// Load a script file, which passes its data by calling finetuneMonitor; rejects if the file is missing or damaged.
function loadScript(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.addEventListener("load", () => resolve(script.remove()));
    script.addEventListener("error", () => reject(new Error(address, script.remove())));
    document.head.append(script);
  });
}

function runOf(id) {
  return page.manifest.runs.find((run) => run.id === id);
}

function metricOf(name) {
  return page.manifest.metrics.find((metric) => metric.name === name) ?? { name, higher_is_better: true, bounds: null };
}

function cellAt(run, position) {
  return page.manifest.cells[run.cells[position]];
}

const versions = new WeakMap();

// The version that a run's images must have.
function versionOf(run) {
  if (!versions.has(run)) {
    versions.set(run, JSON.stringify([run.state, run.steps, run.problems, run.scores]));
  }
  return versions.get(run);
}

// The scores of a run's images; null while they are loading, after which everything is redrawn.
function imagesOf(run) {
  const version = versionOf(run);
  if (page.loading.get(run.id) !== version) {
    loadImages(run, version).finally(() => redraw());
  }
  const held = page.images.get(run.id);
  return held?.version === version ? held.content : null;
}

function loadImages({ id }, version) {
  page.loading.set(id, version);
  page.failed.delete(id);
  const query = page.images.has(id) ? `?t=${encodeURIComponent(page.manifest.written)}` : "";
  return loadScript(`data/${id}.js${query}`)
    .then(() => keepImages(id, version))
    .catch(() => page.failed.set(id, true));
}

function keepImages(id, version) {
  if (page.arrived?.id !== id) {
    throw new Error(`data/${id}.js gave nothing`);
  }
  if (page.loading.get(id) === version) {
    page.images.set(id, { version, content: page.arrived.content });
  }
}

// After a newer manifest: drop outdated images, and note which runs were restarted.
async function refreshImages(before) {
  const { runs, written } = page.manifest;
  for (const run of runs) {
    const old = before.find(({ id }) => id === run.id);
    if (old && !continues(run, old)) {
      page.renewed.set(run.id, written);
    }
  }
  const older = runs.filter((run) => page.images.has(run.id) && page.images.get(run.id).version !== versionOf(run));
  await Promise.all(older.map((run) => loadImages(run, versionOf(run))));
}

// Whether a run is the same as before, possibly further along.
function continues(run, before) {
  const isSame = (name) => before.scores[name].mean.every((mean, place) => mean === run.scores[name]?.mean[place]);
  return before.steps.every((step, place) => step === run.steps[place]) && Object.keys(before.scores).every(isSame);
}

// What a run's images depend on besides the step and the cell.
function imagesKey(run) {
  return [run.id, imagesOf(run) !== null, page.failed.has(run.id), page.renewed.get(run.id)];
}

// Why a run's scores are not available yet, in words.
function absenceOf(run) {
  return page.failed.has(run.id)
    ? `Cannot load the image scores of ${run.name}: data/${run.id}.js is missing or damaged. Write the page again.`
    : "Loading the image scores.";
}

// One image's score; null if it was not measured.
function scoreOf(content, name, place, position) {
  return content?.scores[name]?.[place]?.[position] ?? null;
}

function isAbsent(content, place, position) {
  return content?.absent[place]?.includes(position) ?? false;
}

// The marks of an image, such as "no face": the labels of the columns in which its score is 0.
function marksOf(run, content, place, position) {
  return metricsOf(run).filter(({ name, zero }) => zero && scoreOf(content, name, place, position) === 0).map(({ zero }) => zero);
}

// {mean, low, high, n, missing} of an evaluation, each null if not measured.
function estimateAt(run, name, place) {
  const column = run.scores[name];
  const values = ["mean", "low", "high", "n", "missing"].map((key) => [key, column?.[key]?.[place] ?? null]);
  return Object.fromEntries(values);
}

// The positions of a run's evaluations on the chosen axis.
function positionsOf(run) {
  if (choices.get("x") !== "epochs") {
    return run.steps;
  }
  return run.steps.map((step, place) => run.epochs?.[place] ?? (step === 0 ? 0 : null));
}

// The metrics that a run was scored with, main metrics first.
function metricsOf(run) {
  return page.manifest.metrics.filter(({ name }) => run.scores[name]);
}

// Whether a metric scores images of this cell: some cover the subject's prompts, some the probes, and some, which have
// one value per evaluation, no image.
function covers(run, { over }, position) {
  return over === (run.probes.includes(position) ? "probes" : "prompts");
}

function thumbnailOf(run, step, position, ending = "") {
  const folder = `step-${String(step).padStart(6, "0")}${ending}`;
  const renewed = page.renewed.get(run.id);
  const query = renewed ? `?t=${encodeURIComponent(renewed)}` : "";
  return `thumbnails/${run.id}/${folder}/${encodeURIComponent(run.ids[position])}.webp${query}`;
}

"use strict";

// The data that lies beside the page: the manifest with every run, and each run's images when they are first needed.

// images: {version, content} of each run that was loaded.  loading: the version that was last asked for.
// renewed: when a run was begun again, whose images are then others behind the same addresses.
const page = { manifest: null, arrived: null, images: new Map(), loading: new Map(), failed: new Map(), renewed: new Map() };

// What the data's own scripts call.
const finetuneMonitor = {
  manifest(manifest) {
    page.manifest = manifest;
  },
  images(id, content) {
    page.arrived = { id, content };
  },
};

// A script file gives its data by calling finetuneMonitor; rejects where the file is missing or damaged.
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

// What a run's images have to be as new as.
function versionOf(run) {
  if (!versions.has(run)) {
    versions.set(run, JSON.stringify([run.state, run.steps, run.problems, run.scores]));
  }
  return versions.get(run);
}

// The images' scores of a run; null while they are loaded, after which everything is drawn again.
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

// After a newer manifest: the images that the page holds, as new as it; which runs were begun again.
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

// Whether a run is the same as before, perhaps further on.
function continues(run, before) {
  const isSame = (name) => before.scores[name].mean.every((mean, place) => mean === run.scores[name]?.mean[place]);
  return before.steps.every((step, place) => step === run.steps[place]) && Object.keys(before.scores).every(isSame);
}

// What a run's images depend on beside the step and the cell.
function imagesKey(run) {
  return [run.id, imagesOf(run) !== null, page.failed.has(run.id), page.renewed.get(run.id)];
}

// Why a run's scores are not there yet, in words.
function absenceOf(run) {
  return page.failed.has(run.id)
    ? `The images' scores of ${run.name} could not be loaded: data/${run.id}.js is missing or damaged. Write the page anew.`
    : "Loading the images' scores.";
}

// One image's score; null where it was not measured.
function scoreOf(content, name, place, position) {
  return content?.scores[name]?.[place]?.[position] ?? null;
}

function isAbsent(content, place, position) {
  return content?.absent[place]?.includes(position) ?? false;
}

// What marks an image, such as "no face": the words of the columns in which its score is 0.
function marksOf(run, content, place, position) {
  return metricsOf(run).filter(({ name, zero }) => zero && scoreOf(content, name, place, position) === 0).map(({ zero }) => zero);
}

// {mean, low, high, n, missing} of an evaluation; null each where it was not measured.
function estimateAt(run, name, place) {
  const column = run.scores[name];
  const values = ["mean", "low", "high", "n", "missing"].map((key) => [key, column?.[key]?.[place] ?? null]);
  return Object.fromEntries(values);
}

// Where a run's evaluations stand on the chosen axis.
function positionsOf(run) {
  if (choices.get("x") !== "epochs") {
    return run.steps;
  }
  return run.steps.map((step, place) => run.epochs?.[place] ?? (step === 0 ? 0 : null));
}

// The metrics that a run was scored with, main ones first.
function metricsOf(run) {
  return page.manifest.metrics.filter(({ name }) => run.scores[name]);
}

function thumbnailOf(run, step, position) {
  const folder = `step-${String(step).padStart(6, "0")}`;
  const renewed = page.renewed.get(run.id);
  const query = renewed ? `?t=${encodeURIComponent(renewed)}` : "";
  return `thumbnails/${run.id}/${folder}/${encodeURIComponent(run.ids[position])}.webp${query}`;
}

"use strict";

// The data that lies beside the page: the manifest with every run, and each run's images when they are first needed.

const page = { manifest: null, images: new Map(), loading: new Map(), failed: new Map() };

// What the data's own scripts call.
const finetuneMonitor = {
  manifest(manifest) {
    page.manifest = manifest;
  },
  images(id, content) {
    page.images.set(id, content);
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

// The images' scores of a run; null while they are loaded, after which everything is drawn again.
function imagesOf(run) {
  const version = JSON.stringify([run.state, run.steps, run.problems]);
  const [held, tried] = [page.images.get(run.id) ?? null, page.loading.get(run.id)];
  if (tried !== version) {
    page.loading.set(run.id, version);
    page.failed.delete(run.id);
    const query = held ? `?t=${encodeURIComponent(page.manifest.written)}` : "";
    loadScript(`data/${run.id}.js${query}`)
      .then(() => page.images.has(run.id) || page.failed.set(run.id, true))
      .catch(() => page.failed.set(run.id, true))
      .finally(() => redraw());
  }
  return held;
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

function isFaceless(content, place, position) {
  return scoreOf(content, "faces_found", place, position) === 0;
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
  return `thumbnails/${run.id}/${folder}/${encodeURIComponent(run.ids[position])}.webp`;
}

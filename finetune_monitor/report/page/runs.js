"use strict";

// The runs: for several, a table that is also the charts' legend.

const SEVERAL = 8; // the number of runs from which a filter field is shown

// Ids of the runs that the reader has removed from the charts.
function hiddenRuns() {
  const text = choices.get("hidden") ?? "";
  return new Set(text === "all" ? page.manifest.runs.map(({ id }) => id) : text.split(",").filter(Boolean));
}

function shownRuns() {
  const hidden = hiddenRuns();
  return page.manifest.runs.filter((run) => !hidden.has(run.id) && run.steps.length > 0);
}

function setHidden(hidden) {
  const { runs } = page.manifest;
  const text = hidden.size === runs.length ? "all" : runs.map(({ id }) => id).filter((id) => hidden.has(id)).join(",");
  choose({ hidden: text || null });
}

function drawRuns() {
  const { runs, written } = page.manifest;
  drawOnce("runs", [written, runs.length, darkness.matches], () => {
    if (runs.length < 2) {
      at("runs").replaceChildren();
      return;
    }
    if (!at("runs").querySelector(".runs")) {
      at("runs").replaceChildren(...runsParts());
    }
    at("runs").querySelector(".tools").hidden = runs.length <= SEVERAL;
    const box = at("runs").querySelector(".runs");
    keeping(box, () => {
      box.replaceChildren(runsTable());
      filterRuns();
    });
  });
  if (runs.length > 1) {
    markRuns();
  }
}

// Created once: the reader's input and scroll position are kept when the table is redrawn.
function runsParts() {
  const field = element("input");
  Object.assign(field, { type: "search", placeholder: "Name, setting or state" });
  field.addEventListener("input", filterRuns);
  const tools = element("div", "tools", "", element("label", "wide", "Find runs ", field));
  tools.append(button("", "Show all", () => showFound(true)), button("", "Show none", () => showFound(false)));
  const box = element("div", "scroll runs");
  Object.assign(box, { tabIndex: 0 });
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Runs");
  return [tools, box];
}

function runsTable() {
  const { runs } = page.manifest;
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  const hasPhotos = runs.some((run) => isNumber(run.photos)) && !keys.includes("data.instance_count");
  const columns = [
    ...(hasPhotos ? [["photos", ({ photos }) => (isNumber(photos) ? String(photos) : "unknown")]] : []),
    ["best step", bestInTable],
    ...(runs.some(hasWeights) ? [[element("span", "words", "weights"), (run) => element("span", "words", weightsInTable(run))]] : []),
    [element("span", "words", "state"), (run) => element("span", "words", endOf(run))],
    ...keys.map((key) => [settingHead(key), ({ settings }) => shortValue(settings[key])]),
  ];
  const made = table("Runs", ["run", ...columns.map(([head]) => head)], runs.map((run) => ["", ...columns.map(([, text]) => text(run))]));
  made.caption.className = "unseen";
  [...made.tBodies[0].rows].forEach((row, index) => nameRun(row, runs[index]));
  return made;
}

// The head of a setting's column: the last part of its key, with the full key as a tooltip.
function settingHead(key) {
  const made = element("span", "setting", briefKey(key));
  made.title = key;
  return made;
}

function bestInTable(run) {
  const { metric, step } = run.best ?? {};
  const isMixed = new Set(page.manifest.runs.map((each) => each.best?.metric)).size > 1;
  if (!isNumber(step)) {
    return "none";
  }
  const score = withInterval(estimateAt(run, metric, run.steps.indexOf(step)), metricOf(metric));
  return `${step}: ${isMixed ? `${spoken(metric)} ` : ""}${score}`;
}

// The first cell of a run's row: whether it is in the charts, its style there, and its name.
function nameRun(row, run) {
  const style = runStyle(run);
  const swatch = element("span", "swatch");
  swatch.style.borderTopColor = style.color;
  swatch.style.borderTopStyle = style.dash === "solid" ? "solid" : style.dash.includes("dash") ? "dashed" : "dotted";
  const box = element("input");
  Object.assign(box, { type: "checkbox", disabled: run.steps.length === 0 });
  box.setAttribute("aria-label", `${run.name} in the charts`);
  box.addEventListener("change", () => {
    const hidden = hiddenRuns();
    hidden[box.checked ? "delete" : "add"](run.id);
    setHidden(hidden);
  });
  const name = button("link", run.name, () => run.steps.length && chooseEvaluation(run, openingStep(run)));
  name.title = run.folder;
  row.cells[0].replaceChildren(element("span", "run-name", "", box, swatch, name));
  [box.dataset.key, name.dataset.key] = [`${run.id} box`, `${run.id} name`];
  row.dataset.run = run.id;
}

function markRuns() {
  const [hidden, chosen] = [hiddenRuns(), chosenRun().id];
  for (const row of at("runs").querySelectorAll("tbody tr")) {
    row.querySelector("input").checked = !hidden.has(row.dataset.run);
    row.classList.toggle("marked", row.dataset.run === chosen);
  }
}

function filterRuns() {
  const query = (at("runs").querySelector("input[type=search]")?.value ?? "").trim().toLowerCase();
  for (const row of at("runs").querySelectorAll("tbody tr")) {
    row.hidden = !row.textContent.toLowerCase().includes(query);
  }
}

// Add all runs that match the filter to the charts, or remove them.
function showFound(isShown) {
  const hidden = hiddenRuns();
  for (const row of at("runs").querySelectorAll("tbody tr:not([hidden])")) {
    hidden[isShown ? "delete" : "add"](row.dataset.run);
  }
  setHidden(hidden);
}

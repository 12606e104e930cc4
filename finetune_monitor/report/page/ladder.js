"use strict";

// The trials of a sweep: the same prompt and seed at every value of the axis, and the table of all trials.

// The trials of one person and seed, one per value: those of the chosen run if it is a trial. For a search, all trials.
function ladderTrials(sweep) {
  const there = sweep.trials.filter((trial) => runOf(trial.run)?.steps.length && (trial.group ?? 0) === answerGroup());
  const shown = there.find((trial) => trial.run === chosenRun().id) ?? there[0];
  const isKin = (trial) => trial.person === shown.person && trial.seed === shown.seed;
  const place = (trial) => sweep.axis.values.indexOf(trial.value);
  return there.filter(isKin).sort((a, b) => place(a) - place(b));
}

function drawLadder(sweep) {
  const trials = ladderTrials(sweep);
  at("ladder").hidden = trials.length < 2;
  if (trials.length < 2) {
    return;
  }
  const drawnFor = trials.map((trial) => [trial.run, stepOf(trial), imagesKey(runOf(trial.run))]);
  const key = [page.manifest.written, drawnFor, choices.get("cell"), answerAt(), answerMetric().name, chosenRun().id];
  drawOnce("ladder", key, () => fillLadder(sweep, trials));
}

// The select is created once, so that keyboard users keep the focus.
function ladderParts() {
  if (!at("ladder").firstChild) {
    const select = element("select");
    select.addEventListener("change", () => choose({ cell: select.value }));
    const words = element("p", "chart-title", "", element("strong"), element("span", "soft"));
    const tools = element("div", "tools", "", element("label", "wide", "Prompt and seed ", select));
    at("ladder").append(words, tools, element("ul", "film"));
  }
  return ["strong", ".chart-title .soft", "select", ".film"].map((name) => at("ladder").querySelector(name));
}

function fillLadder(sweep, trials) {
  const [title, note, select, strip] = ladderParts();
  const { person, seed } = trials[0];
  const of = [person, isNumber(seed) ? `training seed ${seed}` : null].filter(Boolean).join(", ");
  const each = sweep.search ? "trial of the search" : sweep.axis.label;
  title.textContent = `The same prompt and seed for each ${each}`;
  note.textContent = [of, `${answerAt()} step of each run`].filter(Boolean).join("; ");
  const first = runOf(trials[0].run);
  const cell = first.cells[chosenCell(first)];
  fillSelect(select, first.cells.map((own, position) => [own, cellName(first, position)]), cell);
  keeping(strip, () => strip.replaceChildren(...trials.map((trial) => rung(sweep, trial, cell))));
}

function rung(sweep, trial, cell) {
  const run = runOf(trial.run);
  const [step, position] = [stepOf(trial), run.cells.indexOf(cell)];
  const place = run.steps.indexOf(step);
  const score = position < 0 ? null : scoreOf(imagesOf(run), answerMetric().name, place, position);
  const open = button("shot", "", () => chooseEvaluation(run, step));
  open.dataset.key = run.id;
  open.append(
    element("strong", "", sweep.search ? settingsInWords(trial) : shortened(valueText(trial.value, sweep.axis), LONGEST_NAME)),
    position < 0 ? noImage("not in this run's grid") : markedImage(run, place, position),
    element("span", "", number(score, answerMetric())),
    element("span", "soft", `step ${step}`),
  );
  open.setAttribute("aria-pressed", String(run.id === chosenRun().id));
  return element("li", "", "", open);
}

// ---- The table of trials

const STATES = { waiting: "waiting", running: "running", finished: "finished", stopped_early: "stopped early", failed: "failed" };

function drawTrials(sweep) {
  const states = [...new Set(sweep.trials.map(({ state }) => state))];
  const counts = states.map((state) => `${sweep.trials.filter((trial) => trial.state === state).length} ${STATES[state] ?? state}`);
  const fold = at("trials");
  fold.firstElementChild.textContent = `${count(sweep.trials.length, "trial")}: ${counts.join(", ")}`;
  if (!fold.lastElementChild.firstChild) {
    fold.open = sweep.trials.some(({ state }) => state === "failed");
  }
  keeping(fold.lastElementChild, () => fold.lastElementChild.replaceChildren(trialsTable(sweep)));
}

function trialsTable(sweep) {
  const has = (key) => sweep.trials.some((trial) => trial[key] !== null && trial[key] !== undefined);
  const along = [[sweep.axis.label, ({ value }) => shortValue(value)]];
  const searched = sweep.search ? settingKeys(sweep).map((key) => [settingHead(key), ({ settings }) => shortValue(settings[key])]) : along;
  const columns = [
    ...(sweep.axis.key ? searched : []),
    sweep.groups.length > 1 && ["group", ({ group }) => sweep.groups[group] ?? ""],
    has("person") && ["person", ({ person }) => person ?? ""],
    has("seed") && ["seed", ({ seed }) => shortValue(seed)],
    ["state", ({ state }) => STATES[state] ?? state],
    ["last step", ({ step }) => (isNumber(step) ? String(step) : "none")],
    ["best step", ({ best_step: best }) => (isNumber(best) ? String(best) : "none")],
    has("alarms") && [element("span", "words", "alarms"), ({ alarms }) => element("span", "words bad", alarms ?? "")],
    has("error") && ["error", ({ error }) => (error ? element("span", "words", error) : "")],
  ].filter(Boolean);
  const isFine = (index) => sweep.trials[index].state !== "failed";
  const order = sweep.trials.map((_, index) => index).sort((a, b) => isFine(a) - isFine(b) || a - b);
  const rows = order.map((index) => ["", ...columns.map(([, text]) => text(sweep.trials[index]))]);
  const made = table("Trials, failed ones first", ["trial", ...columns.map(([head]) => head)], rows);
  [...made.tBodies[0].rows].forEach((row, place) => nameTrial(row, sweep.trials[order[place]], order[place]));
  return made;
}

function settingKeys({ trials }) {
  return [...new Set(trials.flatMap(({ settings }) => Object.keys(settings)))];
}

// The settings of a trial of a search: everything that was chosen for it.
function settingsInWords({ settings }) {
  return Object.entries(settings).map(([key, value]) => `${briefKey(key)} ${shortValue(value)}`).join(", ");
}

function nameTrial(row, trial, index) {
  const isThere = runOf(trial.run)?.steps.length > 0;
  const name = isThere ? button("link", trial.name, () => openTrial(trial)) : element("span", "", trial.name);
  name.dataset.key = index;
  row.cells[0].replaceChildren(name);
  row.classList.toggle("failed", trial.state === "failed");
}

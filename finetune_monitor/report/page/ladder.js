"use strict";

// The trials of a sweep: the same prompt and seed at every value of the axis, and the table of all.

// The runs of one person and seed, one a value; those of the chosen run where it is a trial.
function ladderTrials({ axis: along, trials }) {
  const shown = trials.find((trial) => trial.run === chosenRun()?.id) ?? trials.find((trial) => runOf(trial.run));
  if (!along || !shown) {
    return [];
  }
  const isKin = (trial) => trial.person === shown.person && trial.seed === shown.seed && trial.group === shown.group;
  const place = (trial) => along.values.indexOf(trial.value);
  return trials.filter((trial) => isKin(trial) && runOf(trial.run)?.steps.length).sort((a, b) => place(a) - place(b));
}

function drawLadder(sweep) {
  const trials = ladderTrials(sweep);
  at("ladder").hidden = trials.length < 2;
  if (trials.length < 2) {
    return;
  }
  const runs = trials.map((trial) => runOf(trial.run));
  const loaded = runs.map((run) => [imagesOf(run) !== null, page.failed.has(run.id)]);
  const key = [page.manifest.written, trials.map(({ run }) => run), loaded, choices.get("cell"), answerAt(), answerMetric().name, chosenRun().id];
  drawOnce("ladder", key, () => fillLadder(sweep, trials));
}

function fillLadder(sweep, trials) {
  const { person, seed } = trials[0];
  const of = [person, isNumber(seed) ? `training seed ${seed}` : null].filter(Boolean).join(", ");
  const words = element("p", "chart-title", "", element("strong", "", `The same prompt and seed for each ${sweep.axis.label.replace(/^the /, "")}`));
  words.append(element("span", "soft", [of, `${answerAt()} step of each run`].filter(Boolean).join("; ")));
  const label = element("label", "wide", "Prompt and seed ");
  const select = element("select");
  const [first] = trials.map((trial) => runOf(trial.run));
  fillSelect(select, first.cells.map((cell, position) => [cell, cellName(first, position)]), first.cells[chosenCell(first)]);
  select.addEventListener("change", () => choose({ cell: select.value }));
  label.append(select);
  const strip = element("ul", "film", "", ...trials.map((trial) => rung(sweep, trial)));
  at("ladder").replaceChildren(words, element("div", "tools", "", label), strip);
}

function rung(sweep, trial) {
  const run = runOf(trial.run);
  const step = (answerAt() === "best" ? trial.best_step : trial.step) ?? openingStep(run);
  const [place, metric] = [run.steps.indexOf(step), answerMetric()];
  const wanted = chosenCell(runOf(ladderTrials(sweep)[0].run));
  const position = run.cells.indexOf(runOf(ladderTrials(sweep)[0].run).cells[wanted]);
  const score = position < 0 ? null : scoreOf(imagesOf(run), metric.name, place, position);
  const open = button("shot", "", () => chooseEvaluation(run, step));
  open.append(
    element("strong", "", shortValue(trial.value)),
    position < 0 ? noPicture("not in this run's grid") : picture(run, place, position),
    element("span", "", number(score, metric)),
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
  fold.open ||= sweep.trials.some(({ state }) => state === "failed");
  fold.lastElementChild.replaceChildren(trialsTable(sweep));
}

function trialsTable(sweep) {
  const has = (key) => sweep.trials.some((trial) => trial[key] !== null && trial[key] !== undefined);
  const columns = [
    sweep.axis && [sweep.axis.label, ({ value }) => shortValue(value)],
    sweep.groups.length > 1 && ["group", ({ group }) => sweep.groups[group] ?? ""],
    has("person") && ["person", ({ person }) => person ?? ""],
    has("seed") && ["seed", ({ seed }) => shortValue(seed)],
    ["state", ({ state }) => STATES[state] ?? state],
    ["last step", ({ step }) => (isNumber(step) ? String(step) : "none")],
    ["best step", ({ best_step: best }) => (isNumber(best) ? String(best) : "none")],
    has("error") && ["error", ({ error }) => error ?? ""],
  ].filter(Boolean);
  const isFine = (index) => sweep.trials[index].state !== "failed";
  const order = sweep.trials.map((_, index) => index).sort((a, b) => isFine(a) - isFine(b) || a - b);
  const rows = order.map((index) => ["", ...columns.map(([, text]) => text(sweep.trials[index]))]);
  const made = table("Trials, failed ones first", ["trial", ...columns.map(([head]) => head)], rows);
  [...made.tBodies[0].rows].forEach((row, place) => nameTrial(row, sweep.trials[order[place]], order[place]));
  made.tHead.rows[0].lastElementChild.classList.toggle("words", has("error"));
  return made;
}

function nameTrial(row, trial, index) {
  const isThere = runOf(trial.run)?.steps.length > 0;
  row.cells[0].replaceChildren(isThere ? button("link", trial.name, () => openTrial(index)) : element("span", "", trial.name));
  row.classList.toggle("failed", trial.state === "failed");
  if (trial.error) {
    row.lastElementChild.classList.add("words");
  }
}

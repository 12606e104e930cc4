"use strict";

// The head of the page: when it was written, what is in progress, and everything to know before reading the scores.

function drawHead() {
  const { manifest } = page;
  document.title = manifest.title || "Report";
  const [only, other] = manifest.runs;
  write("title", only && !other && !manifest.sweep ? only.name : manifest.title || "Report");
  write("where", only && !other ? only.folder : "");
  write("written", `Written ${whenWritten(manifest.written)}`);
  write("state", manifest.live ? "Live" : "");
  at("state").classList.toggle("live", manifest.live);
  drawOnce("overview", overview(manifest), () => at("overview").replaceChildren(...sentences(overview(manifest))));
  write("intervals", manifest.intervals ?? "");
  write("interval-words", manifest.intervals ?? "");
  drawOnce("notices", noticesOf(manifest), drawNotices);
  drawOnce("remarks", remarksOf(manifest), drawRemarks);
}

// The sentences to read first: the verdict on a single run, or its first sentence for each of a few.
function overview({ runs, notes, sweep }) {
  if (runs.length === 0) {
    return [notes.length ? `${capital(notes.join("; "))}.` : "There are no runs to show."];
  }
  if (runs.length > 1) {
    const running = runs.filter((run) => run.state === "running").length;
    const evaluations = runs.reduce((sum, run) => sum + run.steps.length, 0);
    const states = running ? ` ${running} in progress.` : " All have ended.";
    const verdicts = !sweep && runs.length <= FEW ? runs.filter((run) => run.verdict?.length).map((run) => `${run.name}: ${run.verdict[0]}`) : [];
    return [`${runs.length} runs with ${count(evaluations, "evaluation")}.${states}`, ...verdicts];
  }
  return runs[0].verdict ?? [];
}

// The first sentence as a headline, the others as a list.
function sentences([first, ...others]) {
  const items = others.map((text) => element("li", text.startsWith("Alarm ") ? "sounding" : "", text));
  return [element("p", others.length ? "headline" : "", first), ...(items.length ? [element("ul", "", "", ...items)] : [])];
}

// The state of a run, in words.
function endOf(run) {
  const last = run.steps.length ? `step ${run.last_step}` : "no evaluation yet";
  return run.state === "running" ? `${last}: ${run.why}` : `ended at ${last}: ${run.why}`;
}

// Each notice once, with its runs if it does not apply to all.
function noticesOf({ runs }) {
  const all = [...new Set(runs.flatMap((run) => run.notices))];
  return all.map((notice) => {
    const names = runs.filter((run) => run.notices.includes(notice)).map((run) => run.name);
    return names.length === runs.length ? notice : `${listed(names)}: ${notice}`;
  });
}

function listed(names) {
  const few = names.slice(0, 3).join(", ");
  return names.length > 3 ? `${few} and ${names.length - 3} more` : few;
}

function drawNotices() {
  const notices = noticesOf(page.manifest);
  at("notices").hidden = notices.length === 0;
  at("notices").replaceChildren(...notices.map((notice) => element("li", "", notice)));
}

// What could not be read, is missing, or cannot be compared.
function remarksOf({ runs, notes, unreadable }) {
  const unread = unreadable.map(({ folder, problem }) => `${folder} could not be read: ${problem}`);
  const problems = runs.flatMap((run) => run.problems.map((problem) => `${run.name}: ${problem}`));
  return [...unread, ...notes, ...problems];
}

function drawRemarks() {
  const remarks = remarksOf(page.manifest);
  at("remarks").hidden = remarks.length === 0 || page.manifest.runs.length === 0;
  at("remarks").open ||= page.manifest.unreadable.length > 0;
  at("remarks").firstElementChild.textContent = `${count(remarks.length, "remark")} on the data`;
  at("remarks").lastElementChild.replaceChildren(...remarks.map((remark) => element("li", "", remark)));
}

"use strict";

// One image of the chosen evaluation in a dialog: its prompt, seed, and scores, the nearest photo, and the command
// to render it again.

// The run's id and the step remain those of the opened image, whatever the page shows below.
const enlarged = { id: "", step: 0, positions: [], position: 0 };

function openEnlarged(run, place, positions, position) {
  Object.assign(enlarged, { id: run.id, step: run.steps[place], positions, position });
  fillEnlarged();
  at("enlarged").showModal();
}

function fillEnlarged() {
  const { id, step, positions, position } = enlarged;
  const run = runOf(id);
  const place = run?.steps.indexOf(step) ?? -1;
  if (place < 0) {
    at("enlarged").close();
    return;
  }
  const content = imagesOf(run);
  const { prompt, negative_prompt: negative, seed, sampling } = cellAt(run, position);
  at("enlarged-image").replaceChildren(cellImage(run, place, position), ...badges(run, content, place, position));
  const photos = nearestFigures(run, content, place, position);
  at("enlarged-photos").replaceChildren(...photos);
  at("enlarged-photos").hidden = photos.length === 0;
  write("enlarged-title", prompt);
  write("enlarged-place", `${run.name}, step ${step}; image ${positions.indexOf(position) + 1} of ${positions.length}`);
  termList(at("enlarged-scores"), content ? scorePairs(run, content, place, position) : [["scores", absenceOf(run)]]);
  const without = negative ? [["without", negative]] : [];
  termList(at("enlarged-facts"), [["seed", String(seed)], ...without, ["sampling", sampling], ["cell", run.ids[position]]]);
  at("again").hidden = !run.reproducible.includes(step);
  at("command").value = renderCommand(run, step, position);
  write("copy", "Copy");
  at("previous").disabled = positions.indexOf(position) <= 0;
  at("next").disabled = positions.indexOf(position) >= positions.length - 1;
}

function renderCommand(run, step, position) {
  return `finetune-monitor render ${shellWord(run.folder)} --step ${step} --cell ${shellWord(run.ids[position])}`;
}

function turnEnlarged(distance) {
  const { positions, position } = enlarged;
  const next = positions[positions.indexOf(position) + distance];
  if (next !== undefined) {
    enlarged.position = next;
    fillEnlarged();
  }
}

function throughTheSteps() {
  const { id, step, position } = enlarged;
  at("enlarged").close();
  choose({ run: id, cell: runOf(id).cells[position], moment: step });
  goTo(at("timeline"));
}

function onEnlargedKey(event) {
  const distance = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (distance && event.target !== at("command")) {
    event.preventDefault();
    turnEnlarged(distance);
  }
}

function setUpEnlarged() {
  const dialog = at("enlarged");
  dialog.addEventListener("keydown", onEnlargedKey);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  at("previous").addEventListener("click", () => turnEnlarged(-1));
  at("next").addEventListener("click", () => turnEnlarged(1));
  at("close").addEventListener("click", () => dialog.close());
  at("to-timeline").addEventListener("click", throughTheSteps);
  at("command").addEventListener("focus", () => at("command").select());
  at("copy").addEventListener("click", () => copyText(at("command").value, at("copy")));
}

"use strict";

// One image of the chosen evaluation in a dialog: its prompt, seed and scores, and how to make it again.

const enlarged = { positions: [], position: 0 };

function openEnlarged(positions, position) {
  Object.assign(enlarged, { positions, position });
  fillEnlarged();
  at("enlarged").showModal();
}

function fillEnlarged() {
  const run = chosenRun();
  const [place, content] = [chosenPlace(run), imagesOf(run)];
  const { positions, position } = enlarged;
  const { prompt, negative_prompt: negative, seed, sampling } = cellAt(run, position);
  const step = run.steps[place];
  at("enlarged-picture").replaceChildren(picture(run, place, position), ...badges(run, content, place, position));
  write("enlarged-title", prompt);
  write("enlarged-place", `${run.name}, step ${step}; image ${positions.indexOf(position) + 1} of ${positions.length}`);
  termList(at("enlarged-scores"), content ? scorePairs(run, content, place, position) : [["scores", absenceOf(run)]]);
  const without = negative ? [["without", negative]] : [];
  termList(at("enlarged-facts"), [["seed", String(seed)], ...without, ["sampling", sampling], ["cell", run.ids[position]]]);
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

async function copyCommand() {
  at("command").select();
  try {
    await navigator.clipboard.writeText(at("command").value);
    write("copy", "Copied");
  } catch {
    write("copy", "Selected: copy it with Ctrl-C");
  }
}

function throughTheSteps() {
  const run = chosenRun();
  at("enlarged").close();
  choose({ cell: run.cells[enlarged.position], moment: null });
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
  at("copy").addEventListener("click", copyCommand);
  at("close").addEventListener("click", () => dialog.close());
  at("to-timeline").addEventListener("click", throughTheSteps);
  at("command").addEventListener("focus", () => at("command").select());
}

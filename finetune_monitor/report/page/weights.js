"use strict";

// The weights of a step: where they are, and what loads them.

function hasWeights(run) {
  return Object.keys(run.weights).length > 0;
}

function weightsInWords(run, step) {
  if (run.weights[step]) {
    return `Weights: ${run.weights[step].place}`;
  }
  return step === 0 ? "Step 0 is the base model, of which the run has no copy." : "The weights of this step were not kept.";
}

// The path of a file of the run: absolute where the page is opened from the same disk, otherwise as the run was named.
function pathOf(run, file) {
  if (location.protocol !== "file:") {
    return `${run.folder}/${file}`;
  }
  const path = decodeURIComponent(new URL(`${encodeURI(`${run.way}/${file}`)}`, location.href).pathname);
  return path.replace(/^\/([A-Za-z]:)/, "$1"); // a drive of Windows
}

function exportCommand(run, step) {
  const name = `${run.name.split("/").at(-1)}-step-${step}${run.weights[step].lora ? ".safetensors" : ""}`;
  return `finetune-monitor export ${shellWord(run.folder)} --step ${step} --to ${shellWord(name)}`;
}

// A text in Python's quotes.
function pythonText(text) {
  return JSON.stringify(text);
}

function loadingLines(run, { place, lora }) {
  const path = pythonText(pathOf(run, place));
  const base = pythonText(run.model ?? "the base model");
  const pipe = lora ? [`pipe = DiffusionPipeline.from_pretrained(${base})`, `pipe.load_lora_weights(${path})`] : [`pipe = DiffusionPipeline.from_pretrained(${path})`];
  return ["from diffusers import DiffusionPipeline", "", ...pipe, `image = pipe(${pythonText(cellAt(run, 0).prompt)}).images[0]`].join("\n");
}

// Of how many steps there are weights, and whether the best is among them.
function weightsInTable(run) {
  const steps = Object.keys(run.weights);
  const isBestThere = run.best?.step in run.weights;
  return steps.length ? `${count(steps.length, "step")} kept${isBestThere ? ", with the best" : ""}` : "none";
}

function drawWeights() {
  const run = chosenRun();
  const step = run.steps[chosenPlace(run)];
  drawOnce("weights", [run.id, run.name, run.folder, run.way, run.model, step, run.weights], () => {
    write("weights-title", `Weights of ${page.manifest.runs.length > 1 ? `${run.name}, ` : ""}step ${step}`);
    write("weights-place", hasWeights(run) ? whereTheyAre(run, step) : "The run keeps no weights.");
    at("weights-commands").replaceChildren(...(run.weights[step] ? loadingParts(run, step) : []));
  });
}

function whereTheyAre(run, step) {
  const steps = Object.keys(run.weights);
  const others = steps.length > 1 && steps.length <= 12 ? ` Kept steps: ${steps.join(", ")}.` : ` ${count(steps.length, "step")} kept.`;
  return run.weights[step] ? `${weightsInWords(run, step)}.` : `${weightsInWords(run, step)}${others}`;
}

function loadingParts(run, step) {
  const found = run.weights[step];
  const parts = [copyable(found.lora ? "The LoRA file, for diffusers" : "The folder with the complete pipeline", pathOf(run, found.place))];
  parts.push(copyable("Load it in Python", loadingLines(run, found)));
  if (found.kohya) {
    parts.push(copyable("For ComfyUI, copy this file into ComfyUI/models/loras (AUTOMATIC1111 and Forge: models/Lora)", pathOf(run, found.kohya)));
  }
  return [...parts, copyable("Export a copy under a name of its own", exportCommand(run, step))];
}

// A text to copy, with its label.
function copyable(label, text) {
  const block = element("pre", "", "", element("code", "", text));
  block.tabIndex = 0;
  block.setAttribute("aria-label", label);
  const head = element("div", "copyable-head", "", element("span", "", label), copyButton(text, "Copy"));
  return element("div", "copyable", "", head, block);
}

function copyButton(text, label) {
  const made = button("copy", label, () => copyText(text, made));
  return made;
}

async function copyText(text, pressed) {
  try {
    await navigator.clipboard.writeText(text);
    pressed.textContent = "Copied";
  } catch {
    pressed.textContent = copiedTheOldWay(text) ? "Copied" : "Cannot copy: select it and press Ctrl-C";
  }
}

// Pages that are opened from files may not use the clipboard's own interface.
function copiedTheOldWay(text) {
  const field = element("textarea", "unseen");
  field.value = text;
  const held = document.activeElement;
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  held?.focus({ preventScroll: true });
  return isDone;
}

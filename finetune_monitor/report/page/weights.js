"use strict";

// The weights of a step: where they are in the run's folder, and the command that exports them.

function hasWeights(run) {
  return Object.keys(run.weights).length > 0;
}

function weightsInWords(run, step) {
  if (run.weights[step]) {
    return `Weights: ${run.weights[step].place}`;
  }
  return step === 0 ? "Step 0 is the base model, of which the run has no copy." : "The weights of this step were not kept.";
}

function exportCommand(run, step) {
  const name = `${run.name.split("/").at(-1)}-step-${step}${run.weights[step].lora ? ".safetensors" : ""}`;
  return `finetune-monitor export ${shellWord(run.folder)} --step ${step} --to ${shellWord(name)}`;
}

// The weights of the best step, and how many others there are.
function weightsInTable(run) {
  const steps = Object.keys(run.weights);
  const best = run.weights[run.best?.step]?.place;
  return steps.length ? [best && `best: ${best}`, `${count(steps.length, "step")} kept`].filter(Boolean).join("; ") : "none";
}

// Next to the images of the chosen evaluation; nothing for a run that has no weights at all.
function drawWeights() {
  const run = chosenRun();
  const step = run.steps[chosenPlace(run)];
  at("weights").hidden = !hasWeights(run);
  drawOnce("weights", [run.id, run.name, run.folder, step, run.weights], () => {
    write("weights-place", weightsInWords(run, step));
    at("export").hidden = !run.weights[step];
    at("export-command").value = run.weights[step] ? exportCommand(run, step) : "";
    write("copy-export", "Copy");
  });
}

// Copy a command from its field, or select it where the browser does not allow that.
async function copyCommand(field, button) {
  at(field).select();
  try {
    await navigator.clipboard.writeText(at(field).value);
    write(button, "Copied");
  } catch {
    write(button, "Selected: copy with Ctrl-C");
  }
}

function setUpCommand(field, button) {
  at(field).addEventListener("focus", () => at(field).select());
  at(button).addEventListener("click", () => copyCommand(field, button));
}

function setUpWeights() {
  setUpCommand("export-command", "copy-export");
}

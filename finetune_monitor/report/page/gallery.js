"use strict";

// The images of the chosen evaluation with all their scores, next to the photos of the person.

function drawGallery() {
  const run = chosenRun();
  const [place, content, prompts] = [chosenPlace(run), imagesOf(run), promptsOf(run)];
  fillSelect(at("images-run"), runOptions(), run.id);
  fillSelect(at("images-step"), stepOptions(run), run.steps[place]);
  const prompt = wantedPrompt("prompt", prompts);
  fillSelect(at("images-prompt"), promptOptions(prompts), prompt === null ? "" : `=${prompt}`);
  fillSelect(at("images-order"), orderOptions(run), wantedOrder(run));
  at("earlier").disabled = place <= 0;
  at("later").disabled = place >= run.steps.length - 1;
  drawOnce("references", [run.id, run.references], () => drawReferences(run));
  const rows = content && metricsOf(run).map(({ name }) => content.scores[name]?.[place]);
  const key = [imagesKey(run), run.steps[place], rows, content?.absent[place], prompt, wantedOrder(run), endOf(run)];
  drawOnce("gallery", key, () => fillGallery(run, place, content));
  drawOnce("alarms", [key, run.alarms, run.nearest, run.references], () => drawAlarms(run, place, content));
}

function orderOptions(run) {
  const ofImages = metricsOf(run).filter(({ over }) => over !== "run");
  const both = ofImages.flatMap(({ name }) => [
    [`${name}:down`, `${spoken(name)}, highest first`],
    [`${name}:up`, `${spoken(name)}, lowest first`],
  ]);
  return [["", "as in the grid"], ...both];
}

function wantedOrder(run) {
  const order = choices.get("order") ?? "";
  return orderOptions(run).some(([value]) => value === order) ? order : "";
}

// Positions in the run's grid in display order; unmeasured images come last in either direction.
function shownPositions(run, place, content) {
  const prompt = wantedPrompt("prompt", promptsOf(run));
  const positions = run.cells.map((_, position) => position).filter((position) => prompt === null || cellAt(run, position).prompt === prompt);
  const [name, way] = wantedOrder(run).split(":");
  if (!name || !content) {
    return positions;
  }
  const sign = way === "up" ? 1 : -1;
  const value = (position) => {
    const score = scoreOf(content, name, place, position);
    return score === null ? Infinity : sign * score;
  };
  return positions.sort((a, b) => (value(a) === value(b) ? a - b : value(a) - value(b)));
}

function fillGallery(run, place, content) {
  const positions = shownPositions(run, place, content);
  write("images-state", content ? evaluationInWords(run, place, positions, content) : absenceOf(run));
  at("images-state").classList.toggle("bad", page.failed.has(run.id));
  const cards = positions.map((position) => card(run, place, position, content, positions));
  startRows(run, positions, cards);
  keeping(at("gallery"), () => at("gallery").replaceChildren(...cards));
}

// In the order of the grid, each prompt starts a row, so that a column is a seed.
function startRows(run, positions, cards) {
  const prompts = positions.map((position) => cellAt(run, position).prompt);
  const isGrid = wantedOrder(run) === "";
  const columns = Math.max(...rowsOf(run).map(([, own]) => own.length));
  at("gallery").classList.toggle("by-prompt", isGrid && columns <= MOST_COLUMNS);
  at("gallery").style.setProperty("--columns", columns);
  cards.forEach((item, index) => item.classList.toggle("first", index === 0 || prompts[index] !== prompts[index - 1]));
}

function evaluationInWords(run, place, positions, content) {
  const means = metricsOf(run)
    .filter((metric) => metric.main)
    .map((metric) => `${spoken(metric.name)} ${estimateInWords(estimateAt(run, metric.name, place), metric)}`);
  const absent = positions.filter((position) => isAbsent(content, place, position)).length;
  const marks = positions.flatMap((position) => marksOf(run, content, place, position));
  const marked = [...new Set(marks)].map((words) => `${marks.filter((mark) => mark === words).length} with ${words}`);
  const lacks = [absent && `${count(absent, "image")} missing`, ...marked].filter(Boolean);
  const found = [...means, count(positions.length, "image"), ...lacks].join("; ");
  return `${run.name}, step ${run.steps[place]}: ${found}. The run: ${endOf(run)}.`;
}

function card(run, place, position, content, positions) {
  const { prompt, negative_prompt: negative, seed } = cellAt(run, position);
  const open = button("shot", "", () => openEnlarged(run, place, positions, position));
  open.dataset.key = position;
  open.append(cellImage(run, place, position), ...badges(run, content, place, position));
  const words = element("figcaption", "", "", element("strong", "", shortened(prompt, 120)));
  words.append(element("span", "soft", negative ? `seed ${seed}, without: ${shortened(negative, 60)}` : `seed ${seed}`));
  if (content) {
    const list = element("dl", "scores");
    termList(list, briefPairs(run, content, place, position, wantedOrder(run).split(":")[0]));
    words.append(list);
  }
  return element("li", "", "", element("figure", "", "", open, words));
}

// ---- The photos

const KINDS = { used: "Photos used", held_out: "Photos held out" };

function drawReferences(run) {
  const groups = Object.keys(KINDS).map((kind) => [kind, run.references.filter((photo) => photo.kind === kind)]);
  const parts = groups.filter(([, photos]) => photos.length).flatMap(([kind, photos]) => photoGroup(KINDS[kind], photos));
  at("references").replaceChildren(...(parts.length ? parts : [element("p", "soft", "The run's record has no photos of the person.")]));
}

function photoGroup(title, photos) {
  const list = element("ul", "photos", "", ...photos.map(photoItem));
  return [element("h3", "", `${title} (${photos.length})`), list];
}

function photoItem(photo) {
  const item = element("li", "", "", photoImage(photo));
  item.title = photo.name;
  return item;
}

function stepBy(distance) {
  const run = chosenRun();
  const step = run.steps[chosenPlace(run) + distance];
  if (step !== undefined) {
    chooseEvaluation(run, step);
  }
}

// ---- The reader's actions

function setUpGallery() {
  at("images-run").addEventListener("change", ({ target }) => chooseRun(target.value));
  at("images-step").addEventListener("change", ({ target }) => chooseEvaluation(chosenRun(), target.value));
  onChoice("images-prompt", "prompt");
  onChoice("images-order", "order");
  at("earlier").addEventListener("click", () => stepBy(-1));
  at("later").addEventListener("click", () => stepBy(1));
}

// Another run at the same step if it has one, otherwise at its own best.
function chooseRun(id) {
  const [run, before] = [runOf(id), chosenRun()];
  const step = before.steps[chosenPlace(before)];
  const isAsked = choices.has("step") && run.steps.includes(step);
  choose({ run: id, step: isAsked ? step : null, moment: null });
}

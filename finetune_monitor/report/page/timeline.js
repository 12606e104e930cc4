"use strict";

// One cell of a run over the course of training: a slider, a film strip of all steps, and the cell's scores.

const PACE = 700; // milliseconds per step while playing

let playing = null;

// The index of the timeline in the run's steps: that of the evaluation until the slider is moved.
function momentPlace(run) {
  return choices.has("moment") ? chosenPlace(run, "moment") : chosenPlace(run);
}

function drawTimeline() {
  const run = chosenRun();
  const [place, position, content] = [momentPlace(run), chosenCell(run), imagesOf(run)];
  fillSelect(at("timeline-run"), runOptions(), run.id);
  fillSelect(at("timeline-cell"), run.cells.map((cell, each) => [cell, cellName(run, each)]), run.cells[position]);
  const slider = at("slider");
  slider.max = run.steps.length - 1;
  slider.value = place;
  const words = momentInWords(run, place);
  slider.setAttribute("aria-valuetext", words);
  write("moment", words);
  const marked = run.steps.map((_, each) => marksKey(content, each));
  const state = [imagesKey(run), position, marked, run.best?.step];
  drawOnce("frame", [state, run.steps[place], run.scores], () => drawFrame(run, place, position, content));
  drawOnce("film", [state, run.steps], () => drawFilm(run, position));
  markFilm(place);
  drawOnce("course", [state, run.steps, place, page.manifest.written, choices.get("x"), darkness.matches, page.charts], () => drawCourse(run, place, position, content));
  write("play", playing === null ? "Play" : "Pause");
  at("play").setAttribute("aria-pressed", String(playing !== null));
}

function momentInWords(run, place) {
  const step = run.steps[place];
  const epoch = run.epochs?.[place];
  const best = run.best?.step === step ? ", the best" : step === 0 ? ", the base model" : "";
  return isNumber(epoch) && step > 0 ? `step ${step} (epoch ${shortValue(epoch)})${best}` : `step ${step}${best}`;
}

function drawFrame(run, place, position, content) {
  at("frame").replaceChildren(cellImage(run, place, position), ...badges(run, content, place, position));
  at("frame").querySelector("img")?.setAttribute("loading", "eager");
  const pairs = content ? scorePairs(run, content, place, position) : [["scores", absenceOf(run)]];
  termList(at("moment-scores"), pairs);
}

function drawFilm(run, position) {
  const shots = run.steps.map((step, place) => {
    const open = button("shot", "", () => choose({ moment: step }));
    open.dataset.key = step;
    open.append(markedImage(run, place, position), element("span", "", run.best?.step === step ? `${step} ★` : String(step)));
    const marks = badges(run, imagesOf(run), place, position).map((badge) => badge.textContent);
    open.setAttribute("aria-label", [momentInWords(run, place), ...marks].join(", "));
    return element("li", "", "", open);
  });
  keeping(at("film"), () => at("film").replaceChildren(...shots));
}

function markFilm(place) {
  [...at("film").children].forEach((item, index) => {
    const isHere = index === place;
    if (isHere && item.firstChild.getAttribute("aria-current") !== "true") {
      reveal(item);
    }
    item.firstChild.setAttribute("aria-current", String(isHere));
  });
}

// Scroll the strip, but never the page, to make an item visible.
function reveal(item) {
  const strip = item.parentElement;
  const [left, width] = [item.offsetLeft - strip.offsetLeft, item.offsetWidth];
  if (left < strip.scrollLeft || left + width > strip.scrollLeft + strip.clientWidth) {
    strip.scrollLeft = left - (strip.clientWidth - width) / 2;
  }
}

function drawCourse(run, place, position, content) {
  const metrics = content ? mainImageMetrics(run, content, position) : [];
  const names = JSON.stringify(metrics.map(({ name }) => name));
  if (at("course").dataset.names !== names) {
    at("course").replaceChildren(...metrics.map(() => element("div")));
    at("course").dataset.names = names;
  }
  metrics.forEach((metric, index) => drawChart(at("course").children[index], courseChart(run, metric, place, position, content)));
}

function courseChart(run, metric, place, position, content) {
  const scores = run.steps.map((_, each) => scoreOf(content, metric.name, each, position));
  const style = runStyle(run);
  const texts = run.steps.map((step, each) => lines(momentInWords(run, each), number(scores[each], metric)));
  const [x, best] = [positionsOf(run), run.steps.indexOf(run.best?.step)];
  const marked = (each, symbol, size, stroke, fill) =>
    each >= 0 && scores[each] !== null ? [markTrace([x[each]], [scores[each]], symbol, size, stroke, fill)] : [];
  return {
    title: `This image's ${spoken(metric.name)}`,
    note: direction(metric),
    label: `${spoken(metric.name)} of this image over the steps; the table below has the numbers`,
    traces: [
      lineTrace(x, scores, style, texts, run.steps, true),
      ...marked(best, "star", 14, color("card"), style.color),
      ...marked(place, "circle-open", 17, color("ink"), color("ink")),
    ],
    layout: { height: 150, margin: { l: 48, r: 14, t: 8, b: 28 }, xaxis: timeAxis("", x), yaxis: axis("", { nticks: 4 }) },
    table: () => table(spoken(metric.name), ["step", "score"], run.steps.map((step, each) => [String(step), number(scores[each], metric)])),
    onPoint: (step) => choose({ moment: step }),
  };
}

// ---- Playing

function togglePlay() {
  if (playing !== null) {
    stopPlaying();
  } else {
    const run = chosenRun();
    const isAtEnd = momentPlace(run) === run.steps.length - 1;
    playing = setInterval(playOn, PACE);
    choose({ moment: run.steps[isAtEnd ? 0 : momentPlace(run)] });
  }
}

function stopPlaying() {
  clearInterval(playing);
  playing = null;
  redraw();
}

function playOn() {
  const run = chosenRun();
  const next = run.steps[momentPlace(run) + 1];
  if (next === undefined) {
    stopPlaying();
  } else {
    choose({ moment: next });
  }
}

function setUpTimeline() {
  at("timeline-run").addEventListener("change", ({ target }) => chooseRun(target.value));
  onChoice("timeline-cell", "cell");
  at("slider").addEventListener("input", ({ target }) => choose({ moment: chosenRun().steps[Number(target.value)] }));
  at("play").addEventListener("click", togglePlay);
}

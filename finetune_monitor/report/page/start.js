"use strict";

// Open the page: load the data, draw everything, load the charts' library, then look for newer data.

const LIVE = 4000; // milliseconds between checks for newer data while a run is in progress

page.charts = false; // whether the charts' library has been loaded
page.noCharts = "";

// Draw every part whose content has changed.
function redraw() {
  drawHead();
  const isEmpty = page.manifest.runs.every((run) => run.steps.length === 0);
  document.body.classList.toggle("empty", isEmpty);
  if (isEmpty) {
    drawRuns();
    return;
  }
  drawAnswer();
  drawRuns();
  drawCurves();
  drawTraining();
  drawStep();
  drawPareto();
  drawGallery();
  drawWeights();
  drawTimeline();
  drawPairs();
  drawAbout();
  if (at("enlarged").open) {
    fillEnlarged();
  }
}

async function open() {
  readChoices();
  try {
    await loadScript("data/runs.js");
  } catch {
    // reported below
  }
  if (page.manifest?.format !== 1) {
    complain(page.manifest ? "This page's data/runs.js has a different version. Write the page again." : "data/runs.js is missing or damaged. Write the page again.");
    return;
  }
  setUp();
  redraw();
  requestAnimationFrame(() => setTimeout(loadCharts));
  setTimeout(lookForNews, LIVE);
}

function complain(text) {
  at("trouble").hidden = false;
  write("trouble", text);
  document.body.classList.add("empty");
}

function setUp() {
  onChoice("answer-metric", "metric");
  onChoice("answer-group", "group");
  document.querySelectorAll("input[name=at], input[name=x]").forEach((input) => {
    input.addEventListener("change", () => choose({ [input.name]: input.value }));
  });
  at("side").addEventListener("change", ({ target }) => choose({ side: target.checked ? 1 : null }));
  [setUpStep, setUpGallery, setUpEnlarged, setUpTimeline, setUpPairs].forEach((each) => each());
  document.addEventListener("click", onAnchor);
  darkness.addEventListener("change", redraw);
  addEventListener("hashchange", () => {
    readChoices();
    redraw();
  });
}

// The URL keeps the choices: a link to a section scrolls there without changing the URL.
function onAnchor(event) {
  const link = event.target.closest?.('a[href^="#"]');
  if (link) {
    event.preventDefault();
    goTo(at(link.hash.slice(1)));
  }
}

async function loadCharts() {
  try {
    await loadScript("plotly.min.js");
    page.charts = true;
  } catch {
    page.noCharts = "Cannot draw the charts: plotly.min.js is missing next to this page. The numbers are below.";
    drawn.clear();
  }
  redraw();
}

// Load the same file again and apply what is new; the strip of `finetune-monitor watch` calls it, too.
async function fetchNews() {
  const { written, runs } = page.manifest;
  try {
    await loadScript(`data/runs.js?t=${Date.now()}`);
  } catch {
    // it is being written: the next check will find it
  }
  if (page.manifest.written !== written) {
    await refreshImages(runs);
    redraw();
  }
}

async function lookForNews() {
  if (page.manifest.live && !document.hidden) {
    await fetchNews();
  }
  if (page.manifest.live) {
    setTimeout(lookForNews, LIVE);
  }
}

open();

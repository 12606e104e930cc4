"use strict";

// Opening the page: the data, then everything drawn from it, then the charts' library, then what is newer.

const LIVE = 4000; // milliseconds between looks for newer data while a run goes on

page.charts = false; // whether the charts' library is there
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
  drawGallery();
  drawTimeline();
  drawPairs();
  if (at("enlarged").open) {
    fillEnlarged();
  }
}

async function open() {
  readChoices();
  try {
    await loadScript("data/runs.js");
  } catch {
    // told below
  }
  if (page.manifest?.format !== 1) {
    complain(page.manifest ? "This page's data/runs.js is of another version. Write the page anew." : "data/runs.js is missing or damaged. Write the page anew.");
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
  [setUpGallery, setUpEnlarged, setUpTimeline, setUpPairs].forEach((each) => each());
  document.addEventListener("click", onAnchor);
  darkness.addEventListener("change", redraw);
  addEventListener("hashchange", () => {
    readChoices();
    redraw();
  });
}

// The address keeps the choices: a link to a section goes there and leaves the address alone.
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
    page.noCharts = "The charts could not be drawn: plotly.min.js is missing beside this page. The numbers are below.";
    drawn.clear();
  }
  redraw();
}

// While a run goes on: the same file again, and what it says that is new.
async function lookForNews() {
  const { written, live, runs } = page.manifest;
  if (live && !document.hidden) {
    try {
      await loadScript(`data/runs.js?t=${Date.now()}`);
    } catch {
      // it is being written: the next look finds it
    }
    if (page.manifest.written !== written) {
      await refreshImages(runs);
      redraw();
    }
  }
  if (page.manifest.live) {
    setTimeout(lookForNews, LIVE);
  }
}

open();

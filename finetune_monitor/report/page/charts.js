"use strict";

// Plotly charts, loaded after the page has been drawn; each has a table of its numbers next to it.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", sans-serif';
const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset", showTips: false };
const HEIGHT = 220;
const LONGEST_NAME = 24; // letters in a legend
const LONGEST_TICK = 14;
const FEW = 5; // up to this many series all have an interval band; with more, only the chosen one

// Plotly interprets texts as markup.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function lines(...texts) {
  return texts.filter(Boolean).map(plain).join("<br>");
}

// The parts of a chart panel: title, note, plot, and table, created when first drawn.
function chartPanel(panel, { title, note, warning = "" }) {
  if (!panel.firstChild) {
    const words = element("p", "chart-title", "", element("strong"), element("span", "soft"));
    const fold = element("details", "fold", "", element("summary", "", "Values as a table"), element("div", "scroll"));
    fold.lastChild.tabIndex = 0;
    fold.addEventListener("toggle", () => fillTable(panel));
    panel.append(words, element("p", "chart-alarm"), element("div", "plot"), fold);
  }
  panel.querySelector("strong").textContent = title;
  panel.querySelector(".chart-title span").textContent = note;
  panel.querySelector(".chart-alarm").textContent = warning;
  panel.querySelector(".chart-alarm").hidden = warning === "";
}

// Draw in a panel: {title, note, label, traces, layout, table: () => element, onPoint(customdata)}, and possibly a
// warning, or why there is nothing to draw.
function drawChart(panel, chart) {
  chartPanel(panel, chart);
  panel.chart = chart;
  panel.querySelector(".fold").open ||= page.noCharts !== "";
  fillTable(panel);
  const plot = panel.querySelector(".plot");
  panel.classList.toggle("nothing", Boolean(chart.nothing));
  if (chart.nothing) {
    panel.querySelector(".chart-title span").textContent = chart.nothing;
    return;
  }
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", chart.label);
  if (typeof Plotly === "undefined") {
    plot.classList.add("waiting");
    plot.style.height = `${chart.layout.height ?? HEIGHT}px`;
    plot.textContent = page.noCharts;
    return;
  }
  showPlot(panel, plot, chart);
}

function showPlot(panel, plot, chart) {
  const isFirst = !plot.classList.contains("js-plotly-plot");
  if (isFirst) {
    plot.classList.remove("waiting");
    plot.replaceChildren();
  }
  Plotly.react(plot, chart.traces, { ...baseLayout(), ...chart.layout }, CONFIG);
  if (isFirst) {
    plot.on("plotly_click", ({ points }) => {
      const found = points.find((point) => point.customdata !== undefined && point.customdata !== null);
      if (found) {
        panel.chart.onPoint(found.customdata);
      }
    });
  }
}

function fillTable(panel) {
  const fold = panel.querySelector(".fold");
  const made = fold.open ? [panel.chart.table()] : [];
  fold.lastChild.replaceChildren(...made);
  fold.lastChild.setAttribute("aria-label", `Values: ${panel.chart.title}`);
}

function baseLayout() {
  return {
    height: HEIGHT,
    margin: { l: 48, r: 14, t: 10, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: FONT, size: 12, color: color("soft") },
    hovermode: "closest",
    hoverdistance: 24,
    hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink"), size: 12 } },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    showlegend: false,
    uirevision: "kept",
    xaxis: axis(),
    yaxis: axis(),
  };
}

function axis(title = "", more = {}) {
  return {
    title: { text: plain(title), standoff: 8, font: { size: 11 } },
    gridcolor: color("grid"),
    linecolor: color("line"),
    zeroline: false,
    automargin: true,
    ...more,
  };
}

// From the least to the greatest of these values, with room for what is drawn at the ends; undefined without values.
// Wide intervals may double and triple the range, but do not flatten the curve.
function rangeOf(values, intervals = []) {
  const [least, greatest] = [Math.min(...values), Math.max(...values)];
  const span = greatest - least || Infinity;
  const ends = intervals.map((end) => Math.min(Math.max(end, least - span), greatest + span));
  const [low, high] = [Math.min(least, ...ends), Math.max(greatest, ...ends)];
  const room = 0.1 * (high - low || Math.abs(high) || 1);
  return values.length ? [low - room, high + room] : undefined;
}

// An axis of steps or epochs: from 0, with room to see and click the points there.
function timeAxis(title, values) {
  const greatest = Math.max(0, ...values.filter(isNumber));
  const room = 0.04 * greatest;
  return axis(title, greatest > 0 ? { range: [-room, greatest + room] } : { rangemode: "nonnegative" });
}

// A legend below the plot, with as many rows as its names need at this width; the plot keeps its own height.
function legendBelow(names, width) {
  const longest = Math.max(...names.map((name) => [...name].length), 1);
  const columns = Math.max(1, Math.floor((width - 60) / (52 + 7 * longest)));
  const height = HEIGHT + 20 * Math.ceil(names.length / columns);
  return { showlegend: true, height, legend: { orientation: "h", x: 0, y: -0.22, yanchor: "top" } };
}

// The trace of a line with its points; `points` is the data that a click on each passes on.
function lineTrace(x, y, style, texts, points, isMain) {
  return {
    x,
    y,
    mode: "lines+markers",
    line: { color: style.color, dash: style.dash, width: isMain ? 2.6 : 1.6 },
    marker: { color: style.color, symbol: style.symbol, size: isMain ? 7.5 : 6 },
    hoverinfo: "text",
    text: texts,
    customdata: points,
  };
}

// The area between low and high, interrupted where either is missing.
function bandTrace(x, low, high, style) {
  const [across, up] = [[], []];
  let run = [];
  const end = () => {
    const places = [...run, ...run.slice().reverse()];
    places.forEach((place, index) => {
      across.push(x[place]);
      up.push(index < run.length ? high[place] : low[place]);
    });
    if (run.length) {
      across.push(null);
      up.push(null);
    }
    run = [];
  };
  x.forEach((value, place) => (isNumber(value) && isNumber(low[place]) && isNumber(high[place]) ? run.push(place) : end()));
  end();
  const fillcolor = transparent(style.color, 0.16);
  return { x: across, y: up, mode: "lines", fill: "toself", fillcolor, line: { width: 0 }, hoverinfo: "skip" };
}

function markTrace(x, y, symbol, size, stroke, fill) {
  const marker = { symbol, size, color: fill, line: { color: stroke, width: 2 } };
  return { x, y, mode: "markers", marker, hoverinfo: "skip", cliponaxis: false };
}

// A level across the entire chart, with its name.
function levelShape(y) {
  const line = { color: color("soft"), width: 1, dash: "dot" };
  return { type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line, layer: "below" };
}

function levelName(y, text, isBelow) {
  const font = { size: 11, color: color("soft") };
  const place = { xref: "paper", x: 1, xanchor: "right", y, yanchor: isBelow ? "top" : "bottom", yshift: isBelow ? -5 : 0 };
  return { ...place, text: plain(text), showarrow: false, font, borderpad: 1, bgcolor: transparent(color("card"), 0.6) };
}

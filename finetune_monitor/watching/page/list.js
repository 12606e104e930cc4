"use strict";

// The list of runs, looked at again every two seconds.

const EVERY = 2000; // milliseconds

const at = (id) => document.getElementById(id);

let shown = "";

function element(name, content, className) {
  const made = document.createElement(name);
  made.append(...[content].flat());
  if (className) {
    made.className = className;
  }
  return made;
}

function progressOf(run) {
  const bar = document.createElement("progress");
  bar.max = run.max_steps;
  bar.value = run.step;
  bar.setAttribute("aria-label", "Steps");
  return bar;
}

function bestOf({ best, evaluated }) {
  if (!best) {
    return evaluated.length > 0 ? "No best step yet" : "Not evaluated yet";
  }
  return `Best: step ${best.step}${best.score && `: ${best.metric} ${best.score}`}`;
}

function ago(seconds) {
  const passed = Math.max(0, Date.now() / 1000 - seconds);
  const [unit, size] = [["day", 86400], ["hour", 3600], ["minute", 60]].find(([, each]) => passed >= each) ?? ["", 1];
  const count = Math.floor(passed / size);
  return unit ? `${count} ${unit}${count === 1 ? "" : "s"} ago` : "less than a minute ago";
}

function drawnRun(run) {
  const link = element("a", run.name);
  link.href = `/runs/${run.id}/`;
  const item = element("li", [], "run");
  const state = element("span", run.label, `state ${run.state}`);
  item.append(element("div", [element("h2", link), state]));
  if (run.state === "unreadable") {
    item.append(element("p", run.why));
    return item;
  }
  const steps = run.max_steps ? [element("p", `Step ${run.step} of ${run.max_steps}`, "number"), progressOf(run)] : [element("p", `Step ${run.step}`, "number")];
  item.append(element("div", steps));
  const last = run.evaluated_at ? `Last evaluation: ${ago(run.evaluated_at)}` : "";
  item.append(element("div", [element("p", bestOf(run), "number"), element("p", run.why ? sentence(run.why) : last)]));
  if (run.alarms.length > 0) {
    item.append(element("ul", run.alarms.map((alarm) => element("li", sentence(alarm))), "alarms"));
  }
  return item;
}

function sentence(text) {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
}

function draw({ folder, runs }) {
  at("folder").textContent = folder;
  document.title = `Runs in ${folder}`;
  const drawn = runs.map(drawnRun);
  const text = drawn.map((each) => each.outerHTML).join("");
  if (text !== shown) {
    shown = text;
    const focused = document.activeElement?.getAttribute("href");
    at("runs").replaceChildren(...drawn);
    [...at("runs").querySelectorAll("a")].find((each) => each.getAttribute("href") === focused)?.focus();
  }
}

async function look() {
  try {
    const response = await fetch("/api/runs");
    if (!response.ok) {
      throw new Error(await response.text());
    }
    draw(await response.json());
    at("trouble").hidden = true;
  } catch (error) {
    at("trouble").hidden = false;
    at("trouble").textContent = error instanceof TypeError ? "No connection: finetune-monitor watch has ended, or cannot be reached." : error.message;
  }
  setTimeout(look, EVERY);
}

history.replaceState(null, "", "/");
look();

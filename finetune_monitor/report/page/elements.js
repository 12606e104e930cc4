"use strict";

// Create elements from plain text, and redraw a part of the page only if its content has changed.

function at(id) {
  return document.getElementById(id);
}

function write(id, text) {
  if (at(id).textContent !== text) {
    at(id).textContent = text;
  }
}

function element(tag, name = "", text = "", ...children) {
  const made = document.createElement(tag);
  if (name) {
    made.className = name;
  }
  if (text !== "") {
    made.textContent = text;
  }
  made.append(...children);
  return made;
}

function button(name, text, onClick) {
  const made = element("button", name, text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

// Options are pairs [value, text]. An open list is left alone if nothing has changed.
function fillSelect(select, options, value) {
  const key = JSON.stringify(options);
  if (select.dataset.key !== key) {
    select.replaceChildren(...options.map(([each, text]) => new Option(text, each)));
    select.dataset.key = key;
  }
  select.value = String(value);
}

function termList(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([term, value]) => [element("dt", "", term), element("dd", "", value)]));
}

function table(caption, heads, rows) {
  const made = element("table", "", "", element("caption", "", "", element("span", "", caption)));
  const head = made.createTHead().insertRow();
  heads.forEach((text) => head.append(scoped("col", text)));
  const body = made.createTBody();
  rows.forEach(([first, ...others]) => {
    const row = body.insertRow();
    row.append(scoped("row", first), ...others.map(cellOf));
  });
  return made;
}

function scoped(scope, content) {
  const made = content instanceof Node ? element("th", "", "", content) : element("th", "", content);
  made.scope = scope;
  return made;
}

function cellOf(content) {
  return content instanceof Node ? element("td", "", "", content) : element("td", "", content);
}

const drawn = new Map();

// Call `draw` unless the content is unchanged.
function drawOnce(name, key, draw) {
  const text = JSON.stringify(key);
  if (drawn.get(name) !== text) {
    drawn.set(name, text);
    draw();
  }
}

// Redraw a part, keeping its scroll position and the focus on the element with the same `data-key`.
function keeping(part, draw) {
  const { scrollTop, scrollLeft } = part;
  const held = part.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  draw();
  part.scrollTo({ top: scrollTop, left: scrollLeft, behavior: "instant" });
  const again = held === undefined ? null : [...part.querySelectorAll("[data-key]")].find(({ dataset }) => dataset.key === held);
  again?.focus({ preventScroll: true });
}

function goTo(section) {
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  section.scrollIntoView({ behavior: isCalm ? "auto" : "smooth" });
  section.focus({ preventScroll: true });
}

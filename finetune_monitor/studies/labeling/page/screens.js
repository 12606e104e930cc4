"use strict";

const PATIENCE = 400; // milliseconds that sending an answer may take before the labeler is notified

// The page's current state: who rates what.
const page = {
  source: null,
  name: "", // as typed
  labeler: "", // as recorded with the ratings
  questions: [],
  session: null,
  turn: 0, // counts requests, to recognize responses that arrive too late
};

const at = (id) => document.getElementById(id);

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function button(className, text, action) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

function write(id, text) {
  if (at(id).textContent !== text) {
    at(id).textContent = text; // screen readers do not repeat unchanged text
  }
}

function show(screen) {
  for (const each of ["start", "rating", "finished"]) {
    at(each).hidden = each !== screen;
  }
  at("bar").hidden = screen === "start";
  document.body.dataset.screen = screen;
  write("me", page.labeler);
  showState();
}

// The state of the answers: saved, being sent, or waiting. Sending is shown when it takes long, but at once at the end,
// where people leave as soon as they read that all is saved.
function showState(isLate = false) {
  const { text, isTrouble, isMoment, notice } = page.source.state();
  clearTimeout(showState.timer);
  if (isMoment && !isLate && document.body.dataset.screen !== "finished") {
    showState.timer = setTimeout(showState, PATIENCE, true);
  } else {
    write("saved", text);
    at("saved").classList.toggle("trouble", isTrouble === true);
  }
  write("notice", notice);
  at("notice").hidden = notice === "";
  const hasAnswers = page.questions.some((question) => answeredOf(question) > 0);
  for (const each of document.querySelectorAll(".download")) {
    each.hidden = !(page.source.canDownload && hasAnswers);
  }
}

// The history for the back button; a page without its own URL, as in a sandbox, has none.
function setHistory(action, state, address) {
  try {
    history[action](state, "", address);
  } catch {
    // the button leaves the page
  }
}

function answeredOf({ tasks }) {
  return tasks.filter((task) => task.label !== null).length;
}

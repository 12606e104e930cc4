"use strict";

const PATIENCE = 400; // milliseconds that an answer may be on its way before the labeler is told

// Who rates what, as the page stands now.
const page = {
  source: null,
  name: "", // as it was typed
  labeler: "", // as it stands beside the ratings
  questions: [],
  session: null,
  turn: 0, // counts what was asked for, so that what comes late is known to be late
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
    at(id).textContent = text; // unchanged words are not read out again
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

// Where the answers are: saved, on their way, or waiting.
function showState(isLate = false) {
  const { text, isTrouble, isMoment, notice } = page.source.state();
  clearTimeout(showState.timer);
  if (isMoment && !isLate) {
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

// What the back button goes by; a page without an address of its own, as in a sandbox, has none.
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

"use strict";

const SOON = 150; // milliseconds that an image must be shown before an answer counts
const DOUBLE_CLICK = 400; // the same for the second click of a double click
const FLASH = 350;
const SLOW = 300;

const embedded = at("plan");
page.source = embedded ? new EmbeddedSource(JSON.parse(embedded.textContent)) : new ServerSource(showState, takeBack);

const stopwatch = new Stopwatch();
let shownAt = null; // when the image appeared; null while there is none to rate

// ---- One image at a time

function showQuestion(question) {
  write("where", question.title);
  write("ask", question.ask);
  at("anchors").replaceChildren(...question.anchors.map(anchorButton));
  at("photos").hidden = !question.with_photos;
  at("photos").replaceChildren();
  at("rating").classList.toggle("with-photos", question.with_photos);
  show("rating");
  at("ask").focus();
}

function anchorButton(anchor, index) {
  const made = button("anchor", "", (event) => answer(index + 1, event.detail > 1 ? DOUBLE_CLICK : SOON));
  made.append(element("b", "", String(index + 1)), element("span", "", anchor));
  made.setAttribute("aria-keyshortcuts", String(index + 1));
  return made;
}

async function showTask() {
  const { task } = page.session;
  const own = ++page.turn;
  shownAt = null;
  showProgress();
  if (!task) {
    showFinished();
    return;
  }
  show("rating");
  showFormerAnswer(task);
  at("stage").replaceChildren();
  const slow = setTimeout(() => at("stage").replaceChildren(element("span", "spinner")), SLOW);
  const isLoaded = await loaded(task);
  clearTimeout(slow);
  if (own !== page.turn) {
    return;
  }
  if (isLoaded) {
    showImage(task, own);
  } else {
    showFailure(task);
  }
  loadAhead(page.session);
}

function showImage(task, own) {
  const { image } = kept(task.image);
  image.alt = "The image to rate";
  image.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  at("stage").replaceChildren(image);
  at("rating").scrollTop = 0;
  showPhotos(task);
  requestAnimationFrame(() => {
    if (own === page.turn) {
      shownAt = performance.now();
      stopwatch.start();
    }
  });
}

function showFailure(task) {
  const choices = element("div", "choices");
  choices.append(
    button("second", "Try again", () => {
      loadAgain(task);
      showTask();
    }),
    button("second", "Skip", () => {
      page.session.skip();
      showTask();
    }),
  );
  const box = element("div", "failure");
  box.setAttribute("role", "alert");
  box.append(element("p", "", "Cannot load this image."), choices);
  at("stage").replaceChildren(box);
}

function showFormerAnswer(task) {
  const { session } = page;
  [...at("anchors").children].forEach((each, index) => {
    each.setAttribute("aria-pressed", String(task.label === index + 1));
  });
  const former = `Your answer was ${task.label}. Answer again to change it.`;
  write("hint", session.isLookingBack ? former : session.question.hint);
  at("hint").classList.toggle("former", session.isLookingBack);
  at("forward").hidden = !session.isLookingBack;
  at("undo").disabled = session.former === undefined;
}

function showProgress() {
  const { session } = page;
  const [answered, total] = [answeredOf(session), session.tasks.length];
  [at("progress").value, at("progress").max] = [answered, total];
  write("count", `${answered} of ${total}`);
  const left = session.millisecondsLeft(total - answered);
  write("left", left === null || answered === total ? "" : `${duration(left)} left`);
}

function duration(milliseconds) {
  const minutes = Math.round(milliseconds / 60000);
  return minutes < 1 ? "under a minute" : minutes === 1 ? "about a minute" : `about ${minutes} minutes`;
}

function answer(label, soonest) {
  if (shownAt === null || performance.now() - shownAt < soonest) {
    return;
  }
  const { source, session, labeler } = page;
  const duration_ms = stopwatch.read();
  const { image_id } = session.task;
  source.journal.add({ labeler, image_id, metric: session.question.metric, label, duration_ms });
  session.answer(label, duration_ms);
  flash(at("anchors").children[label - 1]);
  source.send();
  showTask();
}

function flash(chosen) {
  chosen.classList.remove("given");
  void chosen.offsetWidth; // restarts the animation
  chosen.classList.add("given");
  setTimeout(() => chosen.classList.remove("given"), FLASH);
}

function undo() {
  if (page.session?.former) {
    page.session.undo();
    showTask();
  }
}

function back() {
  if (page.session?.back()) {
    showTask();
  }
}

function forward() {
  if (page.session?.isLookingBack) {
    page.session.forward();
    showTask();
  }
}

// ---- The end of a question

function showFinished() {
  show("finished");
  const { session, questions, source } = page;
  const [skipped, all] = [session.skipped.size, session.tasks.length];
  const done = `${all === 1 ? "The only image is" : `All ${all} images are`} rated.`;
  write("summary", skipped === 0 ? done : `${skipped} of ${all} images cannot be shown.`);
  const next = questions.find((each) => answeredOf(each) < each.tasks.length && each !== session.question);
  const choices = [button("second", "Review my answers", back)];
  if (next) {
    choices.unshift(button("main", `Continue with: ${next.title}`, () => begin(next.metric)));
  } else if (source.canDownload) {
    choices.unshift(button("main", "Download ratings (CSV)", download));
  }
  if (skipped > 0) {
    choices.unshift(button("main", "Try them again", trySkipped));
  }
  at("onward").replaceChildren(...choices);
  at("thanks").focus();
}

function trySkipped() {
  page.session.skipped.forEach(loadAgain);
  page.session.unskip();
  showTask();
}

function download() {
  const link = element("a", "");
  link.href = URL.createObjectURL(new Blob([page.source.csv(page.labeler)], { type: "text/csv" }));
  link.download = `ratings-${page.labeler.replace(/[^\p{L}\p{N}]+/gu, "-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// ---- Event listeners

const ACTIONS = { Backspace: undo, u: undo, U: undo, ArrowLeft: back, ArrowRight: forward };
for (const label of [1, 2, 3, 4, 5]) {
  ACTIONS[label] = () => answer(label, SOON);
}

function onKey(event) {
  const isTyping = event.target instanceof HTMLInputElement;
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || at("enlarged").open || !page.session) {
    return;
  }
  const action = Object.hasOwn(ACTIONS, event.key) ? ACTIONS[event.key] : null;
  const isPressing = event.target instanceof HTMLButtonElement && ["Enter", " "].includes(event.key);
  if (action || (event.repeat && isPressing)) {
    event.preventDefault();
  }
  if (action && !event.repeat) {
    action(); // a held key counts once
  }
}

// Images answered in another tab of this browser need no answer here.
function onOtherTab({ key, newValue }) {
  const { journal } = page.source;
  if (newValue !== null && journal && key?.startsWith(journal.prefix)) {
    const entry = journal.parsed(key);
    setLabel(entry, entry?.label);
  }
  showState();
}

// An answer that the server will never accept: ask again, unless a later one to the same question is being sent.
function takeBack(entry) {
  const isOfSame = (other) => ["labeler", "metric", "image_id"].every((name) => other[name] === entry[name]);
  setLabel(entry, page.source.journal.entries().findLast(isOfSame)?.label ?? null);
}

// Apply an answer that was not given on this screen, and update the screen.
function setLabel(entry, label) {
  const { questions, labeler, session } = page;
  const question = questions.find(({ metric }) => metric === entry?.metric);
  const task = question?.tasks.find(({ image_id }) => image_id === entry.image_id);
  if (!task || !isSame(entry.labeler, labeler)) {
    return;
  }
  const [shown, wasOpen] = [session?.task, task.label === null];
  task.label = label;
  if (question !== session?.question) {
    return;
  }
  if (shown === undefined || (shown === task && wasOpen)) {
    session.toNext();
  }
  if (session.task !== shown) {
    showTask();
  } else if (shown) {
    showFormerAnswer(shown);
    showProgress();
  }
}

function onHistory({ state }) {
  if (state?.metric) {
    begin(state.metric);
  } else {
    showStart();
  }
}

function onHome() {
  setHistory("replaceState", null);
  showStart();
}

function onLeave(event) {
  if (page.source.journal && !page.source.journal.isSafe) {
    event.preventDefault();
  }
}

async function open() {
  at("name").value = stored(NAME) ?? "";
  if (location.search !== "") {
    setHistory("replaceState", history.state, location.pathname); // the URL no longer shows the key
  }
  await showQuestions();
  if (history.state?.metric && page.labeler) {
    await begin(history.state.metric);
  }
  if (!page.session) {
    show("start");
    at(matchMedia("(hover: hover)").matches && typedName() === "" ? "name" : "welcome").focus();
  }
}

at("name").addEventListener("input", onName);
at("who").addEventListener("submit", onSubmit);
at("home").addEventListener("click", onHome);
at("undo").addEventListener("click", undo);
at("forward").addEventListener("click", forward);
at("enlarged").addEventListener("click", () => at("enlarged").close());
document.querySelectorAll(".download").forEach((each) => each.addEventListener("click", download));
addEventListener("keydown", onKey);
addEventListener("storage", onOtherTab);
addEventListener("popstate", onHistory);
addEventListener("beforeunload", onLeave);
open();

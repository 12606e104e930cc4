"use strict";

const NAME = "finetune-monitor-labeler";
const LONGEST_NAME = 60;
const TYPING = 350; // milliseconds after the last keystroke

// The screen that asks for a name and shows the questions with their progress.
async function showStart() {
  page.session = null;
  show("start");
  await showQuestions();
}

async function showQuestions() {
  clearTimeout(onName.timer);
  const own = ++page.turn;
  const name = isName(typedName()) ? typedName() : "";
  let shown;
  try {
    const { labeler, questions } = await page.source.load(name);
    shown = questions.map(questionCard);
    if (own === page.turn) {
      Object.assign(page, { name, labeler, questions });
    }
  } catch (error) {
    shown = [failureItem(error.message)];
  }
  if (own === page.turn) {
    at("questions").replaceChildren(...shown);
    write("known", knownLabeler());
    showState();
  }
}

function failureItem(message) {
  const item = element("li", "failure");
  item.setAttribute("role", "alert");
  item.append(element("p", "", message), button("second", "Try again", showQuestions));
  return item;
}

// A warning for a name whose answers did not come from this browser: it may belong to another person.
function knownLabeler() {
  const { source, labeler, questions } = page;
  const answered = questions.reduce((sum, question) => sum + answeredOf(question), 0);
  if (labeler === "" || answered === 0 || source.journal.knows(labeler)) {
    return "";
  }
  const images = `${answered} ${answered === 1 ? "image" : "images"}`;
  return `Continue as ${labeler}, who has rated ${images}. If that is not you, enter another name.`;
}

function questionCard(question) {
  const [answered, total] = [answeredOf(question), question.tasks.length];
  const bar = element("progress", "");
  [bar.value, bar.max] = [answered, total];
  bar.setAttribute("aria-hidden", "true");
  const action = answered === 0 ? "Start" : answered < total ? "Continue" : "Review";
  const line = element("span", "line");
  line.append(bar, element("span", "figures", `${answered} of ${total}`), element("span", "action", action));
  const card = button("card", "", () => begin(question.metric));
  card.append(element("strong", "", question.title), element("span", "muted", question.ask), line);
  const item = element("li", "");
  item.append(card);
  return item;
}

function typedName() {
  return at("name").value.normalize("NFC").replace(/\s+/g, " ").trim();
}

function isName(name) {
  return name !== "" && [...name].length <= LONGEST_NAME && !/[\p{C}\p{Zl}\p{Zp}]/u.test(name);
}

function onName() {
  write("complaint", "");
  at("name").removeAttribute("aria-invalid");
  clearTimeout(onName.timer);
  onName.timer = setTimeout(showQuestions, TYPING);
}

function complain() {
  const isEmpty = typedName() === "";
  write("complaint", isEmpty ? "Please enter your name first." : `Please use at most ${LONGEST_NAME} plain characters.`);
  at("name").setAttribute("aria-invalid", "true");
  at("name").focus();
}

// Go from the start screen to a question's images.
async function begin(metric) {
  clearTimeout(onName.timer);
  if (!isName(typedName())) {
    complain();
    return;
  }
  if (typedName() !== page.name) {
    await showQuestions();
  }
  const question = page.questions.find((each) => each.metric === metric);
  if (!question || typedName() !== page.name) {
    return;
  }
  store(NAME, page.labeler);
  if (history.state?.metric !== metric) {
    setHistory("pushState", { metric });
  }
  page.session = new Session(question);
  showQuestion(question);
  showTask();
}

function onSubmit(event) {
  event.preventDefault();
  const next = page.questions.find((each) => answeredOf(each) < each.tasks.length) ?? page.questions[0];
  begin(next?.metric);
}

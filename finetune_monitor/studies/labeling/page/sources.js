"use strict";

const AGAIN = 1500; // milliseconds before a retry
const LONGEST_WAIT = 15000; // milliseconds to wait for the server
const OLDEST = 90 * 24 * 3600 * 1000; // milliseconds; the server does not accept older answers
const STORED = 204;
const REFUSED = 422; // the server will never accept this answer
const NO_ANSWER = "The server does not respond. Your answers stay in this browser until it does.";
const STRANGER = "Something else responds in the server's place. Your answers stay in this browser until the server is back.";

// Loads questions and images from the server, and sends the answers to it.
//
// load(name): {labeler, questions}: the labeler's recorded name, and the tasks {image_id, label, image, photos} in
//   their order.
// url(image): the source for an <img>.
//
// onChange(): something has been sent, or sending failed.  onRefusal(entry): an answer will never be accepted.
class ServerSource {
  canDownload = false;

  constructor(onChange, onRefusal) {
    Object.assign(this, { onChange, onRefusal });
    this.problem = "";
    this.refusal = "";
    this.settled = -Infinity; // no answer that is sent now was given before this time
    this.isFailing = false;
    this.isSending = false;
    for (const event of ["online", "focus"]) {
      addEventListener(event, () => this.send());
    }
  }

  url(image) {
    return image;
  }

  async load(name) {
    const query = name ? `?labeler=${encodeURIComponent(name)}` : "";
    const before = this.journal?.entries() ?? []; // answers that arrive meanwhile may be in neither of the two
    const response = await asked(`/api/questions${query}`);
    if (!response.ok || !isOfType(response, "application/json")) {
      throw new Error(await explained(response));
    }
    const { plan, labeler, questions } = await response.json();
    if (plan !== this.plan) {
      this.plan = plan;
      this.journal = new Journal(plan);
      before.length = 0;
    }
    overlay(questions, [...before, ...this.journal.entries()], labeler);
    this.send();
    return { labeler, questions };
  }

  // Send the answers in order, one at a time, and retry until they succeed.
  async send() {
    if (this.isSending || !this.journal) {
      return;
    }
    this.isSending = true;
    clearTimeout(this.timer);
    try {
      for (let next; (next = this.journal.entries()[0]); ) {
        await this.sendOne(next);
        this.isFailing = false;
        this.onChange();
      }
    } catch (error) {
      this.problem = error.message;
      this.isFailing = true;
      this.timer = setTimeout(() => this.send(), AGAIN);
    }
    this.isSending = false;
    this.onChange();
  }

  async sendOne(entry) {
    const { key, image_id, labeler, metric, label, duration_ms } = entry;
    const [given, start] = [Math.max(this.journal.moment(entry), this.settled), performance.now()];
    const age_ms = Math.round(Math.min(Math.max(start - given, 0), OLDEST));
    const body = JSON.stringify({ plan: this.plan, key, image_id, labeler, metric, label, duration_ms, age_ms });
    const headers = { "Content-Type": "application/json" };
    const response = await asked("/api/ratings", { method: "POST", headers, body, keepalive: true });
    if (response.status !== STORED && response.status !== REFUSED) {
      throw new Error(await explained(response));
    }
    const refusal = response.status === REFUSED ? await response.text() : "";
    this.settled = given + performance.now() - start; // the server's time for this answer is not later
    this.journal.remove(key);
    this.tell(entry, refusal);
  }

  // A refusal is shown until a later answer has been saved.
  tell(entry, refusal) {
    if (refusal) {
      this.refusal = `An answer was rejected, and its image will be shown again. ${refusal}`;
      this.refused = this.journal.entries().at(-1)?.key ?? entry.key;
      this.onRefusal(entry);
    } else if (this.refusal && entry.key > this.refused) {
      this.refusal = "";
    }
  }

  // The state of the answers for the labeler: {text, isMoment, isTrouble, notice}.
  state() {
    const waiting = this.journal?.entries().length ?? 0;
    if (waiting === 0) {
      return { text: "Saved", notice: this.refusal };
    }
    if (!this.isFailing) {
      return { text: "Saving", isMoment: true, notice: this.refusal };
    }
    const unsafe = this.journal.isSafe ? "" : "This browser cannot save your answers: leave the page open.";
    const notice = [this.refusal, this.problem, unsafe].filter(Boolean).join(" ");
    return { text: `${waiting} waiting, retrying`, isTrouble: true, notice };
  }
}

// Everything is in the page itself, and the answers stay in this browser until they are downloaded.
class EmbeddedSource {
  canDownload = true;

  constructor(content) {
    this.content = content;
    this.journal = new Journal(content.plan);
  }

  url(number) {
    return `data:image/jpeg;base64,${document.getElementById(`image-${number}`).textContent}`;
  }

  async load(name) {
    const labeler = this.journal.entries().find((entry) => isSame(entry.labeler, name))?.labeler ?? name;
    const questions = this.content.questions.map((question) => {
      const tasks = question.tasks.map(([image_id, image, photos]) => ({ image_id, label: null, image, photos }));
      return { ...question, tasks: ordered(tasks, this.content.seed, question.metric, labeler) };
    });
    overlay(questions, this.journal.entries(), labeler);
    return { labeler, questions };
  }

  send() {}

  state() {
    const count = this.journal.entries().length;
    const notice = this.journal.isSafe ? "" : "This browser cannot save your answers: download them before you leave.";
    return { text: count === 0 ? "" : "Saved in this browser", notice };
  }

  // The labeler's answers in the format of ratings.py.
  csv(labeler) {
    const columns = ["image_id", "labeler", "metric", "label", "timestamp", "duration_ms"];
    const own = this.journal.entries().filter((entry) => isSame(entry.labeler, labeler));
    const rows = [columns, ...own.map((entry) => columns.map((column) => entry[column]))];
    return rows.map((row) => row.map(quoted).join(",") + "\n").join("");
  }
}

async function asked(address, options = {}) {
  try {
    return await fetch(address, { ...options, signal: AbortSignal.timeout(LONGEST_WAIT) });
  } catch {
    throw new Error(NO_ANSWER);
  }
}

// The server's reason for a failure, as text for the labeler; another site's page does not count.
async function explained(response) {
  return !response.ok && isOfType(response, "text/plain") ? await response.text() : STRANGER;
}

function isOfType(response, type) {
  return (response.headers.get("Content-Type") ?? "").startsWith(type);
}

// Names that differ only in case are the same person.
function isSame(name, other) {
  return name.toLowerCase() === other.toLowerCase();
}

// Merge the labeler's answers that only this browser has into those that came with the questions.
function overlay(questions, entries, labeler) {
  const name = (metric, image_id) => JSON.stringify([metric, image_id]);
  const own = entries.filter((entry) => isSame(entry.labeler, labeler));
  const labels = new Map(own.map((entry) => [name(entry.metric, entry.image_id), entry.label]));
  for (const { metric, tasks } of questions) {
    for (const task of tasks) {
      task.label = labels.get(name(metric, task.image_id)) ?? task.label;
    }
  }
}

// A CSV field; values that a spreadsheet might interpret as formulas are also quoted.
function quoted(value) {
  const plain = String(value);
  // a spreadsheet would run these as formulas; csv_files.py removes the apostrophe
  const text = typeof value === "string" && /^'*[=+\-@\t\r]/.test(plain) ? `'${plain}` : plain;
  return /[",\r\n]|^[=+\-@\t\s]|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

"use strict";

const ENOUGH_ANSWERS = 10;
const RECENT_ANSWERS = 30;

// One labeler's progress through the images of one question.
class Session {
  constructor(question) {
    this.question = question;
    this.tasks = question.tasks;
    this.skipped = new Set();
    this.given = this.tasks.filter((task) => task.label !== null); // in the order of the answers
    this.durations = [];
    this.toNext();
  }

  // The current task; undefined at the end.
  get task() {
    return this.tasks[this.place];
  }

  get isLookingBack() {
    return this.task !== undefined && this.task.label !== null;
  }

  // Go to the first image without an answer.
  toNext() {
    this.place = this.open().next().value ?? this.tasks.length;
  }

  *open() {
    for (const [place, task] of this.tasks.entries()) {
      if (task.label === null && !this.skipped.has(task)) {
        yield place;
      }
    }
  }

  // The image that was answered last, or before the current one; undefined if there is none.
  get former() {
    const given = this.given.filter((task) => task.label !== null);
    return given.includes(this.task) ? given[given.indexOf(this.task) - 1] : given.at(-1);
  }

  undo() {
    this.place = this.tasks.indexOf(this.former);
  }

  // Go to the nearest earlier image with an answer; returns whether there is one.
  back() {
    const place = this.tasks.findLastIndex((task, index) => index < this.place && task.label !== null);
    this.place = place < 0 ? this.place : place;
    return place >= 0;
  }

  // Go to the nearest later image with an answer, or otherwise continue with those without.
  forward() {
    const place = this.tasks.findIndex((task, index) => index > this.place && task.label !== null);
    const isBefore = place >= 0 && place < (this.open().next().value ?? this.tasks.length);
    if (isBefore) {
      this.place = place;
    } else {
      this.toNext();
    }
  }

  answer(label, duration) {
    this.task.label = label;
    this.given = [...this.given.filter((task) => task !== this.task), this.task];
    this.durations.push(duration);
    this.toNext();
  }

  skip() {
    this.skipped.add(this.task);
    this.toNext();
  }

  unskip() {
    this.skipped.clear();
    this.toNext();
  }

  // Tasks to preload: the next ones, and the previous one.
  nearby(count) {
    const found = [];
    for (const place of this.open()) {
      found.push(this.tasks[place]);
      if (found.length > count) {
        break;
      }
    }
    return [...found, this.tasks[this.place - 1]].filter((task) => task && task !== this.task);
  }

  // The remaining time, from the median of the latest answers; null until there are enough.
  millisecondsLeft(images) {
    if (this.durations.length < ENOUGH_ANSWERS) {
      return null;
    }
    const recent = this.durations.slice(-RECENT_ANSWERS).sort((a, b) => a - b);
    return recent[Math.floor(recent.length / 2)] * images;
  }
}

// Milliseconds during which the page was visible.
class Stopwatch {
  constructor() {
    document.addEventListener("visibilitychange", () => this.turn());
    this.start();
  }

  start() {
    this.sum = 0;
    this.since = document.hidden ? null : performance.now();
  }

  read() {
    return Math.round(this.sum + (this.since === null ? 0 : performance.now() - this.since));
  }

  turn() {
    this.sum = this.read();
    this.since = document.hidden ? null : performance.now();
  }
}

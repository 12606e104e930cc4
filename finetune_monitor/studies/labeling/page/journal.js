"use strict";

// The answers in this browser, each a separate item in the browser's storage, so that two tabs never overwrite
// each other. If the storage is disabled or full, they are kept in this tab, and `isSafe` is false.
class Journal {
  constructor(plan) {
    this.prefix = `finetune-monitor/${plan}/`;
    this.labelers = `finetune-monitor-labelers/${plan}/`;
    this.held = new Map();
    this.moments = new Map();
    this.time = 0;
  }

  // An entry: {key, labeler, image_id, metric, label, timestamp, duration_ms}; keys sort in the order of the answers.
  add(answer) {
    this.time = Math.max(this.time + 1, Date.now());
    const random = Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join("");
    const key = `${this.time.toString(36).padStart(9, "0")}-${random}`;
    const entry = { key, timestamp: new Date(this.time).toISOString().replace("Z", "+00:00"), ...answer };
    if (!store(this.prefix + key, JSON.stringify(entry))) {
      this.held.set(key, entry);
    }
    this.moments.set(key, performance.now());
    store(this.labelers + answer.labeler, "");
  }

  // When an answer was given, on the monotonic clock of performance.now(); negative if before this page was loaded.
  moment({ key, timestamp }) {
    return this.moments.get(key) ?? performance.now() - (Date.now() - Date.parse(timestamp));
  }

  // Whether this browser has ever held an answer of this labeler.
  knows(labeler) {
    return stored(this.labelers + labeler) !== null;
  }

  remove(key) {
    this.held.delete(key);
    this.moments.delete(key);
    forget(this.prefix + key);
  }

  // All answers, oldest first.
  entries() {
    const found = [...this.held.values()];
    for (const name of storedNames()) {
      if (name.startsWith(this.prefix)) {
        found.push(this.parsed(name));
      }
    }
    return found.filter(Boolean).sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  // The entry in a storage item; null if something else wrote it.
  parsed(name) {
    try {
      const entry = JSON.parse(stored(name));
      return entry.key === name.slice(this.prefix.length) ? entry : null;
    } catch {
      return null;
    }
  }

  get isSafe() {
    return this.held.size === 0;
  }
}

function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function store(name, text) {
  try {
    localStorage.setItem(name, text);
    return true;
  } catch {
    return false;
  }
}

function forget(name) {
  try {
    localStorage.removeItem(name);
  } catch {
    // nothing was stored there
  }
}

function storedNames() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}

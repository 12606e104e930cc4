"use strict";

// Each labeler's own order of the images, for the page without a server: the same as in questions.py.

const GAP = 10;

// 32 pseudorandom bits: FNV-1a over the text in UTF-8, then a mix that spreads every bit over all others.
function orderKey(text) {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) {
    value = Math.imul(value ^ byte, 0x01000193);
  }
  for (const [shift, factor] of [[16, 0x21f0aaad], [15, 0x735a2d97]]) {
    value = Math.imul(value ^ (value >>> shift), factor);
  }
  return (value ^ (value >>> 15)) >>> 0;
}

// An image is repeated after at least GAP others, or after half of a short list.
// tasks: {image_id, image}; among those with the same image, the first in the list is shown first.
function ordered(tasks, seed, metric, labeler) {
  const keys = new Map(tasks.map((task) => [task, orderKey(`${seed}\n${metric}\n${labeler}\n${task.image_id}`)]));
  const byKey = (a, b) => keys.get(a) - keys.get(b) || (a.image_id < b.image_id ? -1 : 1);
  const waiting = [...tasks].sort(byKey);
  const original = originals(tasks);
  const comesAgain = new Set(original.values());
  const gap = Math.min(GAP, Math.floor(tasks.length / 2));
  const places = new Map();
  let firstLooks = comesAgain.size;
  for (let place = 0; place < tasks.length; place++) {
    const isDue = (task) => !original.has(task) || (places.get(original.get(task)) ?? place) <= place - gap;
    const noRoomLeft = firstLooks > 0 && waiting.length - firstLooks <= gap;
    const chosen = waiting.find(noRoomLeft ? (task) => comesAgain.has(task) : isDue) ?? waiting[0];
    firstLooks -= comesAgain.has(chosen);
    places.set(chosen, place);
    waiting.splice(waiting.indexOf(chosen), 1);
  }
  return [...places.keys()];
}

// A map from every task whose image occurred earlier in the list to the first task with that image.
function originals(tasks) {
  const first = new Map();
  const found = new Map();
  for (const task of tasks) {
    if (first.has(task.image)) {
      found.set(task, first.get(task.image));
    } else {
      first.set(task.image, task);
    }
  }
  return found;
}

"use strict";

const REMEMBERED = 64; // loaded images
const AHEAD = 3;

const remembered = new Map();

// An image and a promise that it has loaded; each is loaded once.
function kept(name) {
  const known = remembered.get(name) ?? load(name);
  remembered.delete(name);
  remembered.set(name, known); // the most recently requested is dropped last
  if (remembered.size > REMEMBERED) {
    remembered.delete(remembered.keys().next().value);
  }
  return known;
}

function load(name) {
  const image = new Image();
  image.draggable = false;
  image.src = page.source.url(name);
  const ready = image.decode();
  ready.catch(() => {}); // whoever waits for it gets the error
  return { image, ready };
}

function loadAgain(task) {
  [task.image, ...task.photos].forEach((name) => remembered.delete(name));
  at("photos").replaceChildren();
}

function loadAhead(session) {
  for (const task of session.nearby(AHEAD)) {
    [task.image, ...task.photos].forEach(kept);
  }
}

// Whether a task's image has loaded, and at least one of its photos if it has any.
async function loaded(task) {
  const photos = task.photos.map((photo) => kept(photo).ready);
  try {
    await kept(task.image).ready;
    await (photos.length > 0 ? Promise.any(photos) : null);
    await Promise.allSettled(photos);
    return true;
  } catch {
    return false;
  }
}

function showPhotos({ photos }) {
  const names = JSON.stringify(photos);
  if (at("photos").dataset.names === names && at("photos").hasChildNodes()) {
    return;
  }
  at("photos").dataset.names = names;
  at("photos").replaceChildren(...photos.map(photoButton));
}

function photoButton(photo, index) {
  const { image } = kept(photo);
  image.alt = "";
  const made = button("photo", "", () => enlarge(photo));
  made.setAttribute("aria-label", `Enlarge photo ${index + 1}`);
  made.append(image);
  return made;
}

function enlarge(photo) {
  const image = new Image();
  image.src = page.source.url(photo);
  image.alt = "Reference photo";
  at("enlarged").firstElementChild.replaceChildren(image);
  at("enlarged").showModal();
}

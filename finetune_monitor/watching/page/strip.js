"use strict";

// A strip above the page of a run: what the run is doing, its evaluation in progress, and buttons that steer it.

{
  const EVERY = 1000; // milliseconds between two looks; a hidden page looks less often
  const HIDDEN = 10000;
  const RUN = location.pathname.split("/")[2];

  const isWaiting = document.getElementById("waiting") !== null;

  let page = Number(document.currentScript.dataset.written ?? 0); // how often the files of the page had been written
  let timer = null;

  function element(name, className, content = "") {
    const made = document.createElement(name);
    made.className = className;
    made.append(content);
    return made;
  }

  function button(text, request, className = "") {
    const made = element("button", className, text);
    made.type = "button";
    made.addEventListener("click", () => ask(request));
    return made;
  }

  const parts = {
    all: element("a", "strip-all", "All runs"),
    state: element("span", "strip-state"),
    words: element("span", ""),
    bar: element("progress", ""),
    evaluate: button("Evaluate now", "evaluate"),
    pause: button("Pause", "pause"),
    resume: button("Resume", "resume"),
    stop: button("Stop after this step", "stop", "strip-stop"),
    note: element("p", "strip-note"),
    trouble: element("p", "strip-trouble"),
    progress: element("p", ""),
    images: element("ul", "strip-images"),
  };

  function build() {
    const step = element("div", "strip-step");
    step.append(parts.words, parts.bar);
    parts.bar.setAttribute("aria-label", "Steps");
    parts.all.href = "/";
    parts.state.setAttribute("role", "status");
    parts.trouble.setAttribute("role", "alert");
    const buttons = element("div", "strip-buttons");
    buttons.append(parts.evaluate, parts.pause, parts.resume, parts.stop);
    parts.buttons = buttons;
    const row = element("div", "strip-row");
    row.append(parts.all, parts.state, step, parts.note, buttons);
    parts.evaluation = element("div", "strip-evaluation");
    parts.evaluation.append(parts.progress, parts.images);
    const inside = element("div", "strip-inside");
    inside.append(row, parts.trouble, parts.evaluation);
    const strip = element("section", "strip", inside);
    strip.setAttribute("aria-label", "Live");
    [parts.all, parts.bar, parts.buttons, parts.evaluation, parts.trouble].forEach((each) => (each.hidden = true));
    document.body.prepend(strip);
  }

  function write(part, text) {
    if (part.textContent !== text) {
      part.textContent = text;
    }
    part.hidden = text === "";
  }

  function draw(run) {
    parts.all.hidden = !run.list;
    write(parts.state, run.label);
    parts.state.className = `strip-state ${run.state}`;
    if (run.state === "unreadable") {
      write(parts.note, run.why);
      return;
    }
    write(parts.words, run.max_steps ? `Step ${run.step} of ${run.max_steps}` : `Step ${run.step}`);
    parts.bar.hidden = !run.max_steps;
    parts.bar.max = run.max_steps || 1;
    parts.bar.value = run.step;
    drawButtons(run);
    drawEvaluation(run);
    write(parts.trouble, run.problem ? `The page below could not be updated: ${run.problem}` : "");
  }

  function drawButtons({ state, cannot, asked, why }) {
    const has = (name) => asked.includes(name);
    const isHeld = state === "paused" || has("pause");
    const ended = why ? `${why.slice(0, 1).toUpperCase()}${why.slice(1)}.` : cannot;
    parts.buttons.hidden = cannot !== "";
    parts.evaluate.disabled = has("evaluate") || has("stop");
    parts.pause.hidden = isHeld;
    parts.resume.hidden = !isHeld;
    parts.pause.disabled = has("stop");
    parts.resume.disabled = has("stop");
    parts.stop.disabled = has("stop");
    const waits = asked.filter((name) => !(name === "pause" && state === "paused"));
    write(parts.note, cannot ? ended : waits.length > 0 ? `After this step: ${waits.join(", ")}` : "");
  }

  function drawEvaluation({ images, step, previews }) {
    parts.evaluation.hidden = images === 0;
    const scoring = previews.length >= images ? "; scoring them" : "";
    write(parts.progress, images ? `Evaluating step ${step}: ${previews.length} of ${images} images${scoring}` : "");
    const addresses = images ? previews.map((name) => `/runs/${RUN}/in_progress/${encodeURIComponent(name)}`) : [];
    const known = new Map([...parts.images.children].map((item) => [item.dataset.address, item]));
    if (addresses.join() !== [...known.keys()].join()) {
      parts.images.replaceChildren(...addresses.map((address) => known.get(address) ?? imageItem(address)));
    }
  }

  function imageItem(address) {
    const item = element("li", "");
    item.dataset.address = address;
    const image = element("img", "");
    const [, cell] = address.match(/step-\d+-(.+)\.jpg$/) ?? ["", ""];
    image.alt = `Image ${cell} of the evaluation in progress`;
    image.src = address;
    item.append(image);
    return item;
  }

  async function ask(request) {
    if (request === "stop" && !confirm("Stop this run after its current step? The same command continues it later.")) {
      return;
    }
    try {
      const body = JSON.stringify({ request });
      const headers = { "Content-Type": "application/json" };
      const response = await fetch(`/api/runs/${RUN}/requests`, { method: "POST", headers, body });
      if (!response.ok) {
        alert(await response.text());
      }
    } catch {
      alert("The request did not arrive: finetune-monitor watch has ended, or cannot be reached.");
    }
    look();
  }

  // Bring the page up to date once its files have been written again.
  function refresh(written) {
    if (written === page) {
      return;
    }
    page = written;
    if (isWaiting || !window.fetchNews) {
      location.reload();
    } else {
      window.fetchNews();
    }
  }

  async function look() {
    clearTimeout(timer);
    try {
      const response = await fetch(`/api/runs/${RUN}`);
      if (!response.ok) {
        throw new Error(await response.text());
      }
      const run = await response.json();
      draw(run);
      refresh(run.page);
    } catch (error) {
      parts.buttons.hidden = true;
      write(parts.trouble, error instanceof TypeError ? "No connection: finetune-monitor watch has ended, or cannot be reached." : error.message);
    }
    timer = setTimeout(look, document.hidden ? HIDDEN : EVERY);
  }

  build();
  look();
  document.addEventListener("visibilitychange", look);
}

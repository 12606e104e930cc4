"use strict";

// Two evaluations side by side: the images of the cells that both have, and the differences of their scores.

// The two sides: {run, place, content}. Initially the base model and the best step of the chosen run.
function pairSides() {
  const a = runOf(choices.get("a")) ?? chosenRun();
  const b = runOf(choices.get("b")) ?? chosenRun();
  const first = choices.has("as") ? chosenPlace(a, "as") : 0;
  return [side(a, first), side(b, choices.has("bs") ? chosenPlace(b, "bs") : bestPlace(b))];
}

// The best step so far; the last one where nothing is better than the base model.
function bestPlace(run) {
  const place = run.steps.indexOf(run.best?.step);
  return place > 0 ? place : run.steps.length - 1;
}

function side(run, place) {
  return { run, place, content: imagesOf(run) };
}

function drawPairs() {
  const sides = pairSides();
  sides.forEach(({ run, place }, index) => {
    const letter = "ab"[index];
    fillSelect(at(`${letter}-run`), runOptions(), run.id);
    fillSelect(at(`${letter}-step`), stepOptions(run), run.steps[place]);
  });
  const shared = sharedCells(...sides);
  const prompts = [...new Set(shared.map(({ cell }) => page.manifest.cells[cell].prompt))];
  const prompt = wantedPrompt("pairs", prompts);
  fillSelect(at("pairs-prompt"), promptOptions(prompts), prompt === null ? "" : `=${prompt}`);
  const key = sides.map(({ run, place, content }) => [
    imagesKey(run), run.name, run.steps[place], run.scales, content?.absent[place], Object.values(content?.scores ?? {}).map((rows) => rows[place]),
  ]);
  drawOnce("pairs", [key, prompt], () => fillPairs(sides, shared, prompt));
}

// The cells that both grids have: {cell, places: its position in each}.
function sharedCells(a, b) {
  return a.run.cells
    .map((cell, position) => ({ cell, places: [position, b.run.cells.indexOf(cell)] }))
    .filter(({ places }) => places[1] >= 0);
}

function fillPairs(sides, shared, prompt) {
  const pairs = shared.filter(({ cell }) => prompt === null || page.manifest.cells[cell].prompt === prompt);
  write("pairs-state", pairsInWords(sides, shared, pairs));
  at("pairs-state").classList.toggle("bad", sides.some(({ run }) => page.failed.has(run.id)));
  const isReady = sides.every(({ content }) => content) && pairs.length > 0;
  at("differences").hidden = !isReady;
  at("differences").replaceChildren(...(isReady ? [differencesTable(sides, pairs)] : []));
  at("pair-list").replaceChildren(...pairs.map((pair) => pairItem(sides, pair)));
}

function pairsInWords(sides, shared, pairs) {
  const missing = sides.find(({ content }) => !content);
  if (missing) {
    return absenceOf(missing.run);
  }
  const alone = sides.map(({ run }) => run.cells.length - shared.length);
  if (shared.length === 0) {
    return "The two grids have no prompt and seed in common: there is nothing to compare.";
  }
  const rest = alone[0] || alone[1] ? ` ${alone[0]} of A and ${alone[1]} of B have no counterpart and are left out.` : "";
  const chosen = pairs.length < shared.length ? ` ${pairs.length} of them are shown and compared.` : "";
  return `${count(shared.length, "pair")} with the same prompt and seed.${rest}${chosen}`;
}

function bothMetrics(sides) {
  return metricsOf(sides[0].run).filter(({ name }) => sides[1].run.scores[name]);
}

// The two scores of a pair; null if one was not measured.
function pairScores(sides, { places }, name) {
  return sides.map(({ place, content }, index) => scoreOf(content, name, place, places[index]));
}

function differencesTable(sides, pairs) {
  const coveredBy = (metric) => pairs.filter(({ places }) => covers(sides[0].run, metric, places[0]));
  const rows = bothMetrics(sides)
    .map((metric) => [metric, coveredBy(metric)])
    .filter(([, covered]) => covered.length > 0)
    .map(([metric, covered]) => differenceRow(sides, metric, covered));
  const heads = ["", `A: ${sideName(sides[0])}`, `B: ${sideName(sides[1])}`, "B − A, mean of the pairs [interval]", "pairs measured"];
  return table("Paired differences", heads, rows);
}

function differenceRow(sides, metric, pairs) {
  const measured = pairs.filter((pair) => !pairScores(sides, pair, metric.name).includes(null));
  const scores = measured.map((pair) => pairScores(sides, pair, metric.name));
  const seeds = measured.map(({ cell }) => page.manifest.cells[cell].seed);
  const difference = changeInterval(scores.map(([a, b]) => b - a), seeds, metric.is_share);
  return [
    metricName(sides, metric),
    ...[0, 1].map((index) => number(mean(scores.map((both) => both[index])), metric)),
    verdictOf(difference, metric, isOneScale(sides, metric)),
    `${scores.length} of ${pairs.length}`,
  ];
}

function sideName({ run, place }) {
  return `${run.name}, step ${run.steps[place]}`;
}

// Whether the two runs' scores were measured with the same photos and models.
function isOneScale([a, b], { name }) {
  const scales = [a, b].map(({ run }) => run.scales?.[name] ?? null);
  return scales.includes(null) || scales[0] === scales[1];
}

function metricName(sides, metric) {
  const warning = isOneScale(sides, metric) ? "" : "not on the same scale: measured with different photos or models";
  return element("span", "", spoken(metric.name), element("span", "interval", warning));
}

// The difference, colored if its interval excludes zero; neither side is better on different scales or without a direction.
function verdictOf(difference, metric, isJudged) {
  if (!isJudged || metric.higher_is_better === null) {
    return element("span", "difference", withInterval(difference, metric, signed));
  }
  const { low, high } = difference;
  const isSure = isNumber(low) && isNumber(high) && low * high > 0;
  const isBetter = low > 0 === metric.higher_is_better;
  const sure = isBetter ? "B is better" : "A is better";
  const words = isSure ? sure : isNumber(low) ? "no significant difference" : "";
  const tone = isSure && metric.main ? (isBetter ? "better" : "worse") : "";
  return element("span", `difference ${tone}`, withInterval(difference, metric, signed), element("span", "interval", metric.main ? words : ""));
}

function pairItem(sides, pair) {
  const { prompt, seed } = page.manifest.cells[pair.cell];
  const images = sides.map((each, index) => {
    const { run, place, content } = each;
    const figure = element("figure", "", "", cellImage(run, place, pair.places[index]), ...badges(run, content, place, pair.places[index]));
    figure.append(element("figcaption", "", `${"AB"[index]}: ${sideName(each)}`));
    return figure;
  });
  const words = element("p", "", "", element("strong", "", shortened(prompt, 120)), element("span", "soft", `seed ${seed}`));
  return element("li", "", "", element("div", "two", "", ...images), words, pairList(sides, pair));
}

function pairList(sides, pair) {
  const list = element("dl", "scores");
  const [{ run, content }] = sides;
  const isReady = sides.every((each) => each.content);
  const isMeasured = ({ name }) => pairScores(sides, pair, name).some(isNumber);
  termList(list, (isReady ? mainImageMetrics(run, content, pair.places[0]) : []).filter(isMeasured).map((metric) => {
    const [a, b] = pairScores(sides, pair, metric.name);
    const change = a === null || b === null ? "" : ` (${signed(b - a, metric)})`;
    return [spoken(metric.name), `${number(a, metric)} → ${number(b, metric)}${change}`];
  }));
  return list;
}

// ---- The reader's actions

// Everything that the pairs currently show becomes a choice, so that choosing one side leaves the other unchanged.
function choosePairs(changes) {
  const [a, b] = pairSides();
  choose({ a: a.run.id, as: a.run.steps[a.place], b: b.run.id, bs: b.run.steps[b.place], ...changes });
}

function setUpPairs() {
  ["a", "b"].forEach((letter) => {
    at(`${letter}-run`).addEventListener("change", ({ target }) => choosePairs({ [letter]: target.value, [`${letter}s`]: null }));
    at(`${letter}-step`).addEventListener("change", ({ target }) => choosePairs({ [`${letter}s`]: target.value }));
  });
  onChoice("pairs-prompt", "pairs");
  at("swap").addEventListener("click", () => {
    const [a, b] = pairSides();
    choose({ a: b.run.id, as: b.run.steps[b.place], b: a.run.id, bs: a.run.steps[a.place] });
  });
}

"use strict";

// What a run was made with: its photos, and its settings, models, and libraries with their hashes.

function drawAbout() {
  const run = chosenRun();
  const content = imagesOf(run);
  write("about-run", page.manifest.runs.length > 1 ? `${run.name}: ${run.folder}` : run.folder);
  drawOnce("photos", [run.id, run.references, run.sheet, run.survey, run.photos], () => at("photos").replaceChildren(...photoParts(run)));
  drawOnce("facts", [run.id, content?.about], () => at("facts").replaceChildren(...factParts(content?.about ?? {})));
}

// The contact sheet and what was found out about the photos; otherwise the photos that the record knows.
function photoParts(run) {
  const { sheet, survey } = run;
  const words = [];
  if (survey) {
    words.push(element("ul", "notes", "", ...survey.warnings.map((text) => element("li", "", text))));
  }
  if (sheet) {
    const image = element("img", "sheet");
    Object.assign(image, { loading: "lazy", alt: "Contact sheet of the training photos", src: sheet });
    image.addEventListener("error", () => image.replaceWith(noImage("the contact sheet is missing")));
    const link = element("a", "", "", image);
    Object.assign(link, { href: sheet, target: "_blank", rel: "noreferrer" });
    return [...words, link, ...surveyTable(survey)];
  }
  return [...words, ...(survey ? surveyTable(survey) : knownPhotos(run))];
}

function surveyTable(survey) {
  if (!survey) {
    return [];
  }
  const rows = survey.photos.map(({ name, similarity, outlier, marks }) => {
    const said = marks.length ? marks.join("; ") : outlier ? "another person?" : "";
    return [name, isNumber(similarity) ? similarity.toFixed(2) : MISSING, element("span", "words bad", said)];
  });
  const made = table("Photos", ["photo", "similarity to the others", element("span", "words", "")], rows);
  return [folded(count(rows.length, "photo"), made)];
}

function knownPhotos({ references, photos }) {
  const known = references.map(({ kind, name }) => [name, KINDS[kind].replace("Photos ", "")]);
  if (known.length === 0) {
    return [element("p", "soft", isNumber(photos) ? `Trained on ${count(photos, "photo")}.` : "The run's record does not name its photos.")];
  }
  const strip = element("ul", "photos", "", ...references.map(photoItem));
  return [strip, folded(count(known.length, "photo"), table("Photos", ["photo", "in the scores"], known))];
}

function factParts(about) {
  return Object.entries(about).map(([title, pairs]) => {
    const list = element("dl", "facts");
    termList(list, pairs);
    return folded(`${title} (${pairs.length})`, list);
  });
}

function folded(title, content) {
  const box = element("div", "scroll", "", content);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", title);
  return element("details", "fold", "", element("summary", "", title), box);
}

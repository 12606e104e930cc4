"use strict";

// Screenshots are small on a narrow screen: each one opens at full size.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll("article img")) {
    const link = document.createElement("a");
    link.href = image.src;
    image.replaceWith(link);
    link.append(image);
  }
});

// Mark each table as one of words or of numbers, and give its cells their column's name: narrow screens show it there.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table.docutils")) {
    table.classList.add(table.querySelector("td.text-right") ? "numbers" : "words");
    const names = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    for (const cell of table.querySelectorAll("tbody td:not(:first-child)")) {
      if (cell.textContent.trim()) {
        cell.dataset.column = names[cell.cellIndex];
      }
    }
  }
});

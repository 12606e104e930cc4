"use strict";

// Mark each table as one of words or of numbers, and give its cells their column's name: narrow screens show it there.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table.docutils")) {
    table.classList.add(table.querySelector("td.text-right") ? "numbers" : "words");
    const names = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    for (const cell of table.querySelectorAll("tbody td")) {
      cell.dataset.column = names[cell.cellIndex] ?? "";
    }
  }
});

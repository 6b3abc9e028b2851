// Tables can be sorted and filtered; without this file they are plain tables.
"use strict";

(() => {
  const FEWEST_TO_FILTER = 8;

  // Cells hold the number they are sorted by; those without one come after all others.
  Tablesort.extend("value", () => false, (a, b) => {
    const [x, y] = [a, b].map((text) => (text === "" ? -Infinity : Number(text)));
    return x === y ? 0 : y - x;
  });

  function makeSortable(table) {
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
    }
    new Tablesort(table);
    for (const heading of table.tHead.rows[0].cells) {
      heading.removeAttribute("tabindex"); // the button inside is what is reached by keyboard
    }
  }

  function makeFilter(table, number) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < FEWEST_TO_FILTER) {
      return;
    }
    const box = document.createElement("p");
    box.className = "filter";
    const label = document.createElement("label");
    label.htmlFor = `filter-${number}`;
    label.textContent = "Filter rows";
    const input = document.createElement("input");
    input.type = "search";
    input.id = label.htmlFor;
    const count = document.createElement("output");
    count.htmlFor = input.id;
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = wanted ? `${shown} of ${rows.length} rows` : "";
    });
    box.append(label, " ", input, " ", count);
    table.closest(".scroll").before(box);
  }

  document.querySelectorAll("table.sortable").forEach((table, number) => {
    makeSortable(table);
    makeFilter(table, number);
  });
})();

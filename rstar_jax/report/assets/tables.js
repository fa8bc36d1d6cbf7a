"use strict";

// Tables, and the boxes of the overview's sections.
Report.tables = (() => {
  const { el } = Report.dom;

  // Returns a table whose first column names the rows. `head` and `rows` hold
  // texts or elements; numbers are aligned to the right.
  function table(head, rows, caption) {
    const numeric = head.map((_, column) =>
      rows.every((row) => /^[-–−+\d]/.test(textOf(row[column]))),
    );
    const side = (column) => (numeric[column] && column ? "number" : null);
    return el("div", { class: "scroll", tabindex: 0, role: "group",
      "aria-label": caption || "Table" },
      el("table", {},
        caption && el("caption", { class: "hidden" }, caption),
        el("thead", {}, el("tr", {}, head.map((text, column) =>
          el("th", { scope: "col", class: side(column) }, text)))),
        el("tbody", {}, rows.map((row) => el("tr", {},
          row.map((cell, column) => column
            ? el("td", { class: side(column) }, cell)
            : el("th", { scope: "row" }, cell)))))));
  }

  function textOf(cell) {
    return cell instanceof Node ? cell.textContent : String(cell);
  }

  // Returns a box with a title and an explanation.
  function section(id, title, meaning, ...children) {
    return el("section", { class: "card", "aria-labelledby": id },
      el("h2", { id }, title),
      meaning && el("p", { class: "meaning" }, meaning),
      children);
  }

  // Returns a box that is closed at first.
  function more(title, ...children) {
    return el("details", {}, el("summary", {}, title), children);
  }

  return { table, section, more };
})();

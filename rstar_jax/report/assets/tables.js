"use strict";

// Tables and the boxes that sections of the overview stand in.
Report.tables = (() => {
  const { el } = Report.dom;

  // A table whose first column names the rows. `head` and `rows` hold texts or
  // elements; numbers and what looks like them are set to the right.
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

  // A titled box with a sentence on what is seen in it.
  function section(id, title, meaning, ...children) {
    return el("section", { class: "card", "aria-labelledby": id },
      el("h2", { id }, title),
      meaning && el("p", { class: "meaning" }, meaning),
      children);
  }

  // What is there for whoever wants it, and in nobody's way.
  function more(title, ...children) {
    return el("details", {}, el("summary", {}, title), children);
  }

  return { table, section, more };
})();

"use strict";

// The only global name of the page; each file adds one property.
const Report = {};

// The state of the page is in the address, so that a link leads to the same
// problem and node, and the browser's back button works.
Report.route = (() => {
  // Returns the fields of the address, as in #view=tree&round=4.
  function read() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  // Returns the address of fields; empty ones are left out.
  function link(fields) {
    const kept = Object.entries(fields).filter(
      ([, value]) => value !== undefined && value !== null && value !== "",
    );
    return `#${new URLSearchParams(kept)}`;
  }

  // Changes the address without an entry in the history, for frequent changes.
  function replace(fields) {
    history.replaceState(null, "", link(fields));
  }

  function problem(row, more) {
    return link({
      view: "tree",
      set: row.set,
      round: row.round,
      split: row.set === "test" ? row.split : "",
      problem: row.id,
      tree: row.tree || "",
      ...more,
    });
  }

  return { read, link, replace, problem };
})();

// Light or dark: the reader's choice, or else the system's setting.
Report.theme = (() => {
  const KEY = "rstar-report-theme";
  const root = document.documentElement;

  function remembered() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // Browsers may refuse storage to a local file.
    }
  }

  function current() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return root.dataset.theme || (dark ? "dark" : "light");
  }

  function label(button) {
    const other = current() === "dark" ? "light" : "dark";
    const [sign, word] = other === "dark" ? ["☾", "Dark"] : ["☀", "Light"];
    button.replaceChildren(Report.dom.el("span", { class: "sign" }, sign),
      Report.dom.el("span", { class: "word" }, ` ${word}`));
    button.setAttribute("aria-label", `Change to the ${other} theme`);
  }

  function start(button) {
    const chosen = remembered();
    if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
    label(button);
    button.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      try {
        localStorage.setItem(KEY, root.dataset.theme);
      } catch {
        // The choice then lasts as long as the page.
      }
      label(button);
    });
  }

  return { start };
})();

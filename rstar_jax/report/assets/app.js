"use strict";

// Shows the view that the address names, and updates it on a change.
Report.app = (() => {
  const { el } = Report.dom;
  const main = document.getElementById("main");
  const name = document.querySelector(".brand .name").textContent;
  let rows = null, leave = null, shown = {};

  function find(fields) {
    return rows.findIndex((row) => row.set === fields.set &&
      String(row.round) === fields.round && row.id === fields.problem &&
      (!fields.split || row.split === fields.split) &&
      String(row.tree) === (fields.tree || "0"));
  }

  // Returns the problems before and after one in the list that was last shown,
  // and the same problem in other rounds.
  function neighbours(row) {
    const list = (Report.problems.shown || rows).filter((e) => e.block >= 0);
    const at = list.indexOf(row);
    const others = rows.filter((each) => each.block >= 0 &&
      each.id === row.id && each.set === row.set && each.tree === row.tree &&
      (row.set === "training" || each.split === row.split))
      .sort((a, b) => a.round - b.round);
    return { before: list[at - 1], after: at < 0 ? undefined : list[at + 1],
      others };
  }

  async function problem(fields) {
    const row = rows[find(fields)];
    if (!row) {
      return message("There is no such problem in this report",
        "The link may be of another run, or of a larger report.");
    }
    if (row.block < 0) {
      return message(row.id, row.nodes ?
        "Its tree did not fit into this page; the records hold it." :
        "It was answered without a search, so that there is no tree.");
    }
    const tree = await Report.data.tree(row.block);
    const { heading, outcome } = Report.guide;
    const above = [heading(row, neighbours(row)),
      el("p", { class: "asked" }, tree.question), outcome(tree, row)];
    const drawn = Report.tree.render(tree, row, fields, above,
      (more) => Report.route.replace({ ...Object.fromEntries(
        new URLSearchParams(Report.route.problem(row).slice(1))), ...more }));
    leave = drawn.leave;
    return drawn.page;
  }

  function message(title, text) {
    return el("div", { class: "message" }, el("h1", {}, title),
      el("p", {}, text), el("p", {}, el("a", { href: "#view=problems" },
        "All problems")));
  }

  async function pageOf(view, fields) {
    rows ??= await Report.data.problems();
    if (view === "tree") return problem(fields);
    if (view === "problems") return Report.problems.render(rows, fields);
    return Report.overview.render(await Report.data.overview());
  }

  function failed(error) {
    console.error(error);
    return message("This page could not be shown", Report.live ?
      `${error.message}.` : `${error}. A browser of 2024 or later shows it; ` +
        "if yours is one, the file may be cut short.");
  }

  async function show() {
    const fields = Report.route.read();
    shown = fields;
    leave?.();
    leave = null;
    const view = fields.view || "overview";
    const page = await pageOf(view, fields).catch(failed);
    if (shown !== fields) return; // The address has changed meanwhile.
    main.replaceChildren(page);
    main.dataset.view = view;
    for (const link of document.querySelectorAll("nav [data-view]")) {
      const here = link.dataset.view === (view === "tree" ? "problems" : view);
      if (here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const title = page.querySelector("h1").textContent;
    document.title = `${title} · ${name}`;
    Report.dom.say(title);
    scrollTo(0, 0);
  }

  // Shows what is new of the same page. A tree does not change.
  async function renew() {
    rows = await Report.data.problems();
    // Also while a tree is shown, whose neighbours come from the list.
    Report.problems.renew?.(rows);
    const { view } = main.dataset;
    if (view !== "overview") return;
    const data = await Report.data.overview();
    if (main.dataset.view !== view) return; // The reader has gone on.
    Report.renew.into(main.firstChild, Report.overview.render(data));
  }

  async function start() {
    Report.theme.start(document.getElementById("theme"));
    await show();
    addEventListener("hashchange", async () => {
      await show();
      main.focus({ preventScroll: true }); // For keyboards and screen readers.
    });
    Report.live?.go();
    document.documentElement.dataset.ready = "true";
  }

  start();
  return { find, renew };
})();

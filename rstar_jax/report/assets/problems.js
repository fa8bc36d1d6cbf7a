"use strict";

// The list of problems. Its search text and filters are in the address.
Report.problems = (() => {
  const { el, number, plural, say } = Report.dom;
  const PAGE = 100; // Number of rows shown at once.
  const FIELDS = ["search", "set", "round", "level", "result", "split", "sort"];

  const RESULTS = {
    solved: (row) => row.solved,
    unsolved: (row) => !row.solved,
    suspect: (row) => row.suspect,
    tree: (row) => row.block >= 0,
  };
  const SORTS = {
    nodes: (a, b) => b.nodes - a.nodes,
    right: (a, b) => share(a) - share(b),
    level: (a, b) => (b.level ?? -1) - (a.level ?? -1),
  };

  // Returns the share of right answers; problems without answers come last.
  function share(row) {
    return row.answers ? row.right / row.answers : 2;
  }

  function matches(row, wanted) {
    const words = (wanted.search || "").toLowerCase().split(/\s+/);
    const text = `${row.id} ${row.question} ${row.gold ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word)) &&
      ["set", "round", "level", "split"].every((name) =>
        !wanted[name] || String(row[name]) === wanted[name]) &&
      (RESULTS[wanted.result] || (() => true))(row);
  }

  // Returns the rows that match the filters, sorted as selected.
  function chosen(rows, wanted) {
    const found = rows.filter((row) => matches(row, wanted));
    // `sort` is stable: equal rows stay in the order of the records.
    return SORTS[wanted.sort] ? found.sort(SORTS[wanted.sort]) : found;
  }

  function render(rows, fields) {
    const wanted = Object.fromEntries(FIELDS.map((f) => [f, fields[f] || ""]));
    const count = el("p", { class: "count", role: "status" });
    const body = el("tbody");
    const further = el("button", { type: "button" });
    let found = [], shown = 0;

    function show() {
      const next = found.slice(shown, shown + PAGE);
      body.append(...next.map((row) => line(row)));
      shown += next.length;
      further.hidden = shown >= found.length;
      further.textContent = `Show ${Math.min(PAGE, found.length - shown)} more`;
    }

    function update() {
      found = chosen(rows, wanted);
      shown = 0;
      body.replaceChildren();
      tell();
      show();
    }

    function tell() {
      count.textContent = `${number(found.length)} of ` +
        plural(rows.length, "problem");
      Report.problems.shown = found;
    }

    // Shows as many of other rows, and leaves the rest of the page as it is.
    Report.problems.renew = (now) => {
      rows = now;
      found = chosen(rows, wanted);
      const next = el("tbody", {}, found.slice(0, Math.max(shown, PAGE))
        .map(line));
      shown = next.children.length;
      further.hidden = shown >= found.length;
      Report.renew.into(body, next);
      Report.renew.into(form, filters(rows, wanted, change));
      tell();
    };

    function change(name, value) {
      wanted[name] = value;
      Report.route.replace({ view: "problems", ...wanted });
      update();
    }

    further.addEventListener("click", () => {
      const before = shown;
      show();
      body.children[before]?.querySelector("a")?.focus();
      say(`${number(shown)} problems are shown`);
    });
    const form = filters(rows, wanted, change);
    update();
    return el("div", { class: "problems" },
      el("h1", {}, "Problems"),
      el("p", { class: "meaning" }, "One line for each search of a problem. " +
        "“Right” counts the right ones among all answers in its tree. Choose " +
        "one to see how the search went."),
      form, count,
      el("table", { class: "list" },
        el("thead", {}, el("tr", {}, ["Result", "Problem", "Set", "Round",
          "Level", "Right", "Nodes", "Rollouts"].map((name) =>
          el("th", { scope: "col" }, name)))), body),
      further);
  }

  function filters(rows, wanted, change) {
    const values = (name) => [...new Set(rows.map((row) => row[name]))]
      .filter(Report.dom.known)
      .sort((a, b) => String(a).localeCompare(String(b), "en",
        { numeric: true }));
    const pick = (name, label, options) => el("label", {}, label,
      el("select", { name, onchange: (e) => change(name, e.target.value) },
        options.map(([value, text]) => el("option", { value,
          selected: String(value) === wanted[name] }, text))));
    const each = (name, all) => [["", all],
      ...values(name).map((value) => [value, String(value)])];
    return el("form", { class: "filters", role: "search",
      onsubmit: (e) => e.preventDefault() },
      el("label", { class: "wide" }, "Search", el("input", { type: "search",
        name: "search", value: wanted.search, placeholder:
          "words, an answer, or a name",
        oninput: (e) => change("search", e.target.value) })),
      pick("result", "Result", [["", "all"], ["solved", "solved"],
        ["unsolved", "unsolved"], ["suspect", "perhaps mislabelled"],
        ["tree", "with a tree here"]]),
      pick("set", "Set", each("set", "all")),
      pick("round", "Round", each("round", "all")),
      pick("level", "Level", each("level", "all")),
      values("split").length > 1 && pick("split", "Source",
        each("split", "all")),
      pick("sort", "Order", [["", "newest round first"],
        ["nodes", "most nodes first"], ["right", "fewest right first"],
        ["level", "highest level first"]]));
  }

  function verdict(row) {
    const mark = row.solved ? "✓ solved" : "✗ unsolved";
    return el("span", { class: row.solved ? "good" : "bad" },
      row.suspect ? `${mark} ⚠` : mark);
  }

  function line(row) {
    const cell = (name, value, type) => el("td", { "data-name": name,
      class: type }, value);
    const name = row.question ? [el("span", { class: "question" },
      row.question), el("span", { class: "id" }, row.id)] :
      el("span", { class: "question" }, row.id);
    return el("tr", { "data-key": Report.route.problem(row) },
      cell("Result", verdict(row)),
      el("th", { scope: "row" },
        el("a", { href: Report.route.problem(row) }, name)),
      cell("Set", row.set),
      cell("Round", row.round, "number"),
      cell("Level", row.level ?? "–", "number"),
      cell("Right", row.answers === undefined ? "–" :
        `${row.right}/${row.answers}`, "number"),
      cell("Nodes", row.nodes ? number(row.nodes) : "–", "number"),
      cell("Rollouts", row.rollouts ? number(row.rollouts) : "–", "number"));
  }

  return { render, chosen, verdict, shown: null, renew: null };
})();

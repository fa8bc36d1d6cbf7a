"use strict";

// The details of one node: its text, its output, its values, and how it
// compares with its siblings.
Report.detail = (() => {
  const { el, signed, number, plural, known } = Report.dom;
  const { more } = Report.tables;
  const [CODE, ANSWER] = [2, 3];
  const PAIRS = 12; // Number of pairs of one kind shown.
  const ANSWERS = 15; // Number of different answers shown.

  // Returns the panel's content; `choose(node)` selects another node.
  function render(tree, node, row, choose) {
    const parts = node ? written(tree, node) :
      question(tree, row, choose);
    return [
      el("h2", { id: "detail-title" }, title(tree, node)),
      figures(tree, node),
      ...parts,
      node > 0 && siblings(tree, node, choose),
      node > 0 && pairs(tree, node, choose),
      node > 0 && more("The whole solution up to here", code(Report.data
        .path(tree, node).map((at) => tree.text[at]).join(""))),
      node > 0 && more("The exact text, with its markers", el("pre",
        { tabindex: 0 }, tree.text[node])),
    ].filter(Boolean);
  }

  function title(tree, node) {
    if (!node) return "The question";
    const depth = tree.depth[node];
    if (tree.kind[node] === ANSWER) return `Answer, after ${depth - 1} steps`;
    if (tree.kind[node] === CODE) return `Step ${depth}, which ends the code`;
    return `Step ${depth}`;
  }

  function figures(tree, node) {
    const made = Report.data.rolloutOf(tree, node);
    const verdict = Report.draw.verdict(tree, node);
    const look = { right: "good", wrong: "bad" }[verdict];
    const mark = { right: "✓ right", wrong: "✗ wrong" }[verdict] || verdict;
    const rows = [
      verdict && ["Verdict", el("span", { class: look }, mark)],
      verdict && Report.data.judgedBy(tree),
      ["Q", signed(tree.q[node], 3), tree.visits[node] ?
        "mean outcome of visits" : "what a visit would bring"],
      ["Visits", number(tree.visits[node])],
      known(tree.ppm[node]) && ["PPM", signed(tree.ppm[node], 3),
        "the model’s own value"],
      node > 0 && ["Log-probability", signed(tree.logprob[node])],
      node > 0 && ["Made in", made ? `rollout ${made}` : "–"],
      tree.onPath.has(node) && node > 0 && ["", el("span", { class: "onpath" },
        "on the chosen solution")],
    ].filter(Boolean);
    return el("dl", { class: "facts" }, rows.map(([name, value, note]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value,
        note && el("span", { class: "note" }, note)))));
  }

  // Returns the head of a table: a column of texts, then columns of numbers.
  const head = (...names) => el("thead", {}, el("tr", {}, names.map((name, i) =>
    el("th", { scope: "col", class: i ? "number" : null }, name))));

  // Returns the answers of the search, those of most weight first; a click
  // selects the best solution of each.
  function answers(tree, choose) {
    const groups = new Map();
    for (const [name, text] of Object.entries(tree.answer)) {
      const node = Number(name);
      const key = `${tree.correct[node]} ${text}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(node);
    }
    if (!groups.size) return null;
    const rows = [...groups.values()].sort((a, b) => b.length - a.length);
    const best = (nodes) => nodes.reduce((a, b) =>
      (tree.q[b] > tree.q[a] ? b : a));
    const mark = { right: "✓ ", wrong: "✗ " };
    return el("div", {}, el("h3", {}, "Answers that were found"),
      el("table", { class: "answers" },
        head("Answer", "Times", "Best Q"),
        el("tbody", {}, rows.slice(0, ANSWERS).map((nodes) => el("tr", {},
          el("td", {}, mark[Report.draw.verdict(tree, nodes[0])] || "? ",
            link(tree, best(nodes), choose)),
          el("td", { class: "number" }, number(nodes.length)),
          el("td", { class: "number" }, signed(tree.q[best(nodes)])))))),
      rows.length > ANSWERS && el("p", { class: "note" },
        `and ${plural(rows.length - ANSWERS, "other answer")}`));
  }

  function question(tree, row, choose) {
    const dropped = Object.entries(tree.dropped);
    const reasons = Report.costs.REASONS;
    return [
      el("p", {}, `${plural(tree.growth.length, "rollout")} ` +
        `wrote ${number(tree.tokens)} tokens; ${number(tree.failed)} of them ` +
        "reached no answer."),
      answers(tree, choose),
      tree.tests && more("The tests that a right program passes",
        code(tree.tests)),
      dropped.length > 0 && el("div", {},
        el("h3", {}, "Steps that became no node"),
        el("ul", {}, dropped.map(([reason, count]) =>
          el("li", {}, `${number(count)}: ${reasons[reason] || reason}`)))),
      row.set === "test" && el("p", { class: "note" },
        "This is a problem of the evaluation: nothing was trained on it."),
      el("p", { class: "note" }, "Choose a node to read its code, or walk " +
        "the tree with the arrow keys: → to a next step, ← back, ↑ and ↓ to " +
        "the steps beside it, End to the chosen answer."),
    ];
  }

  function written(tree, node) {
    const parts = Report.text.parts(tree.text[node]);
    const answer = tree.kind[node] === ANSWER;
    return [
      el("h3", {}, answer ? "What it answers" : "The code"),
      code(parts.code),
      parts.ran && el("h3", {}, "What the program printed"),
      parts.ran && el("pre", { class: "output", tabindex: 0 },
        parts.output || "(nothing)"),
    ];
  }

  // Returns code with dimmed comments.
  function code(text) {
    return el("pre", { class: "code", tabindex: 0 }, text.split("\n").map(
      (line, index) => [index ? "\n" : "", /^\s*#/.test(line) ?
        el("span", { class: "comment" }, line) : line]));
  }

  function link(tree, node, choose, length = 40) {
    return el("button", { type: "button", class: "link",
      onclick: () => choose(node) }, Report.draw.snippet(tree, node, length));
  }

  function siblings(tree, node, choose) {
    const all = [...tree.children[tree.parent[node]]]
      .sort((a, b) => tree.q[b] - tree.q[a]);
    if (all.length < 2) {
      return el("p", { class: "note" }, "It has no siblings: every other " +
        "candidate was the same or was dropped.");
    }
    const marks = { right: "✓", wrong: "✗" };
    return el("div", {}, el("h3", {}, "Beside its siblings"),
      el("table", { class: "siblings" },
        head("Step", "Q", "PPM", "Visits"),
        el("tbody", {}, all.map((each) => el("tr",
          { "aria-current": each === node ? "true" : null },
          el("td", {}, marks[Report.draw.verdict(tree, each)], " ",
            each === node ? el("strong", {}, Report.draw.snippet(tree, each,
              40)) : link(tree, each, choose)),
          el("td", { class: "number" }, signed(tree.q[each])),
          el("td", { class: "number" }, signed(tree.ppm[each])),
          el("td", { class: "number" }, number(tree.visits[each])))))));
  }

  function pairs(tree, node, choose) {
    const own = tree.pairs.filter(([, a, b]) => a === node || b === node);
    if (!own.length) return null;
    const lists = [
      ["step", 1, "As a step it is better than"],
      ["step", 2, "As a step it is worse than"],
      ["across", 1, "After another prefix it is better than"],
      ["across", 2, "After another prefix it is worse than"],
      ["final", 1, "As a solution it is better than"],
      ["final", 2, "As a solution it is worse than"],
    ];
    return el("div", {}, el("h3", {}, "Preference pairs for the PPM"),
      lists.map(([kind, side, words]) => {
        const found = own.filter((p) => p[0] === kind && p[side] === node);
        return found.length > 0 && [el("p", { class: "pairs" }, words),
          el("ul", {}, found.slice(0, PAIRS).map((p) => el("li", {},
            link(tree, p[3 - side], choose, 48),
            el("span", { class: "note" }, ` weight ${p[3]}`)))),
          found.length > PAIRS && el("p", { class: "note" },
            `and ${found.length - PAIRS} more`)];
      }));
  }

  return { render };
})();

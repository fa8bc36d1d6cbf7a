"use strict";

// The part above a tree: the problem, its outcome, and the legend.
Report.guide = (() => {
  const { el, svg, number, plural } = Report.dom;

  function heading(row, { before, after, others }) {
    const to = (other, text, label) => other ?
      el("a", { href: Report.route.problem(other), "aria-label": label },
        text) :
      el("span", { class: "off" }, text);
    return el("div", { class: "heading" },
      el("h1", {}, row.id, row.tree ? `, tree ${row.tree + 1}` : ""),
      el("p", { class: "note" }, [row.set === "test" ? "test problem" :
        "training problem", `round ${row.round}`,
      row.level !== null && `level ${row.level}`, row.split]
        .filter(Boolean).join(" · ")),
      others.length > 1 && el("p", { class: "rounds" }, "Round ",
        others.map((each) => el("a", { href: Report.route.problem(each),
          "aria-current": each === row ? "page" : null,
          "aria-label": `Round ${each.round}, ` +
            (each.solved ? "solved" : "unsolved") },
        `${each.round} ${each.solved ? "✓" : "✗"}`))),
      el("div", { class: "steps" }, to(before, "‹ Previous",
        "Previous problem"), to(after, "Next ›", "Next problem")));
  }

  const WORDS = { equal: "✓ right", different: "✗ wrong",
    undecided: "? undecided", failed: "✗ no answer" };

  // Returns a list of facts: what judges answers, and each method's result.
  function outcome(tree, row) {
    const given = tree.chosen.length ? tree.answer[tree.chosen[0]] : null;
    const facts = [Report.data.judgedBy(tree)].filter(Boolean);
    if (row.set === "test") {
      facts.push(["Search answers", given === null ? "nothing" :
        `${given} ${WORDS[row.search] || ""}`]);
      if (row.greedy) facts.push(["Policy alone", WORDS[row.greedy]]);
      if (row.samples) {
        facts.push(["Samples right", row.samples.join(" of ")]);
      }
    } else {
      facts.push(["Kept as training data", tree.chosen.length ?
        plural(tree.chosen.length, "solution") : "nothing of this tree"]);
    }
    facts.push(["Right answers found", `${row.right} of ${row.answers}`],
      ["Nodes", number(row.nodes)], ["Rollouts", number(row.rollouts)]);
    return el("dl", { class: "outcome" }, facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  // Returns the legend of the tree's shapes.
  function legend(row) {
    const key = (...shapes) => svg("svg", { class: "sample",
      viewBox: "-14 -14 28 28", "aria-hidden": "true" }, shapes);
    const node = (type, ...shapes) =>
      svg("g", { class: `node ${type}` }, shapes);
    const ball = (r, cx = 0) => svg("circle", { class: "shape", r, cx });
    const say = (picture, ...text) => el("li", {}, picture,
      el("span", {}, text));
    const ramp = svg("svg", { class: "ramp", viewBox: "0 0 90 12",
      "aria-hidden": "true" }, Array.from({ length: 9 }, (_, q) =>
      node(`q${q}`, svg("rect", { class: "shape", x: 10 * q, width: 10,
        height: 12 }))));
    const square = svg("rect", { class: "shape", x: -8, y: -8, width: 16,
      height: 16, rx: 2.5 });
    const diamond = svg("path", { class: "shape",
      d: "M0 -12L12 0L0 12L-12 0Z" });
    return el("details", { class: "key", open: innerWidth > 700 },
      el("summary", {}, "How to read this tree"),
      el("p", {}, "From left to right, each path is one way to solve the " +
        "problem, step by step. A rollout walks down the most promising " +
        "path, tries next steps there, and tells every step on the path how " +
        "it ended: that is Q."),
      el("ul", {},
        say(key(node("q6", ball(8))), "step of code"),
        say(key(node("q6", square)), "last step, which prints the result"),
        say(key(node("q8", diamond, svg("text", { class: "glyph", y: 4 },
          "✓"))), "answer, ✓ right or ✗ wrong"),
        say(ramp, "Q: −1 ended wrong, +1 ended right"),
        say(key(node("q5", ball(4, -9), ball(8, 5))), "size: visits"),
        say(key(node("q7 chosen", ball(8))), row.set === "training" ?
          "thick: kept as training data" : "thick: the solution given"),
        say(key(node("q4 untried", ball(6))), "hollow: never tried")));
  }

  return { heading, outcome, legend };
})();

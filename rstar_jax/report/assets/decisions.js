"use strict";

// What an oracle says of generated problems: who picks right steps, and why
// searches fail.
Report.decisions = (() => {
  const { el, number, percent, plural } = Report.dom;
  const { table, section, more } = Report.tables;
  const NAMES = { chance: "Chance", policy: "Policy", ppm: "PPM",
    pairs: "Pairs", across: "Across" };
  const REASONS = { right: "Right", policy: "Policy", search: "Search",
    choice: "Choice", unclear: "Unclear" };

  function of(each, index) {
    const newest = each.rounds[each.rounds.length - 1];
    return section(`decisions-${index}`, `Who picks right steps, ${each.split}`,
      "It is known which steps are right, since these problems are " +
      "generated. Where right and wrong steps follow one that is right so " +
      "far: how often chance, the policy by its probability and the PPM by " +
      "its value pick a right one. “Pairs” is how often the PPM values a " +
      "right one above a wrong one; “across”, where the two follow different " +
      "steps, as in a beam. The PPM has guided these trees: steps that it " +
      "wrongly dislikes have none below them, and are not counted.",
      rates("Round", each.rounds, (row) => row.round),
      more(`By level, round ${newest.round}`,
        rates("Level", each.levels, (row) => row.level)),
      el("h3", {}, "Why searches fail"),
      failures(each.rounds),
      el("p", { class: "note" }, "Policy: no right step was sampled below " +
        "any that is right so far. Search: one that is right so far was not " +
        "gone on from. Choice: a right answer is in the tree, and another " +
        "was given."));
  }

  function rates(first, rows, name) {
    const shown = Object.keys(NAMES).filter((key) =>
      rows.some((row) => row[key]));
    return table([first, "Decisions", ...shown.map((key) => NAMES[key])],
      rows.map((row) => [name(row),
        `${number(row.decisions)} (${plural(row.n, "problem")})`,
        ...shown.map((key) => interval(row[key]))]),
      "How often a right step is picked, in percent with 95% intervals");
  }

  function interval(values) {
    if (!values) return "–";
    const [mean, low, high] = values.map((each) => (100 * each).toFixed(0));
    return `${mean} [${low}, ${high}]`;
  }

  function failures(rounds) {
    const shown = Object.keys(REASONS).filter((key) =>
      key !== "unclear" || rounds.some((row) => row.failures[key]));
    const total = (row) => Object.values(row.failures)
      .reduce((sum, each) => sum + each, 0);
    return table(["Round", "Searches", ...shown.map((key) => REASONS[key])],
      rounds.map((row) => [row.round, number(total(row)),
        ...shown.map((key) => {
          const count = row.failures[key] || 0;
          return `${number(count)} (${percent(count / total(row), 0)})`;
        })]),
      "What became of the searches");
  }

  return { of };
})();

"use strict";

// The costs of the run, and the counts of its candidates.
Report.costs = (() => {
  const { el, svg, number, percent, duration } = Report.dom;
  const { table, section, more } = Report.tables;
  const { bar } = Report.charts;
  const LOOKS = { rollout: 0, sft: 1, ppm: 2, eval: 3 };

  function time(rows) {
    if (!rows.length) return null;
    const rounds = [...new Set(rows.map((each) => each.round))];
    const total = (round) => rows.filter((e) => e.round === round)
      .reduce((sum, each) => sum + each.seconds, 0);
    const most = Math.max(...rounds.map(total));
    const look = (each) => LOOKS[each.stage] ?? 4;
    const names = [...new Map(rows.map((e) => [look(e), look(e) === 4 ?
      "Other models" : e.name])).entries()].sort(([a], [b]) => a - b);
    return section("time", "Where the time went",
      "Wall time of the first host, as its stages recorded it. “Device " +
      "waited” is the share in which the accelerator had nothing to do; " +
      "tokens are those generated, or trained on.",
      el("ul", { class: "legend" }, names.map(([index, name]) =>
        el("li", {}, svg("svg", { class: "key",
          viewBox: "0 0 14 14", "aria-hidden": "true" },
        svg("rect", { class: `part p${index}`, width: 14,
          height: 14, rx: 3 })), name))),
      el("div", { class: "bars" }, rounds.map((round) => el("div", {},
        el("span", {}, `Round ${round}`),
        bar(rows.filter((e) => e.round === round).map((each) => ({
          value: each.seconds, look: look(each),
          name: `${each.name}: ${duration(each.seconds)}` })), most,
        `Round ${round}: ${duration(total(round))}`),
        el("span", { class: "number" }, duration(total(round)))))),
      more("The same as a table", table(
        ["Round", "Stage", "Time", "Compiling", "Device waited", "Tokens/s",
          "Useful slots", "Host, µs a token", "Pages", "Dropped"],
        rows.map((each) => [each.round, each.name, duration(each.seconds),
          percent(each.compiling), percent(each.idle), number(each.rate),
          percent(each.full), number(each.host), number(each.pages),
          number(each.dropped)]),
        "Time by stage")));
  }

  const REASONS = {
    duplicate: "same text as another", length: "too long",
    malformed: "not in the grammar", depth: "no room for an answer",
    beside_answer: "beside an answer", error: "code raised an error",
    timeout: "code took too long", memory: "code took too much memory",
    blocked: "code did what it may not", crashed: "its process died",
    output_limit: "code printed too much", lost: "the server gave none",
  };

  function candidates(sets, graded) {
    const read = sets.filter((each) => each.read);
    if (!read.length) return null;
    const reasons = [...new Set(read.flatMap((e) => Object.keys(e.dropped)))]
      .sort();
    return section("candidates", "What became of the candidate steps",
      "Every step that the policy wrote was checked, and its code run in the " +
      "sandbox. What is well-formed, new and runs becomes a node of a tree; " +
      "the rest is counted here, by reason.",
      table(["Trees", "Read", "Became nodes",
        ...reasons.map((r) => REASONS[r] || r)],
      read.map((each) => [`${each.set}, round ${each.round}`,
        number(each.read), number(each.nodes - each.read),
        ...reasons.map((r) => number(each.dropped[r] || 0))]),
      "Candidates by what became of them"),
      graded.length > 0 && [el("h3", {}, "What the grader said"),
        table(["Data of round", "Solutions", "Right", "Wrong", "Undecided"],
          graded.map((each) => [each.round, number(each.answers),
            number(each.right), number(each.wrong), number(each.undecided)]),
          "Verdicts of the grader")]);
  }

  return { time, candidates, REASONS };
})();

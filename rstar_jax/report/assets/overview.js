"use strict";

// The first page: the results of the run, with explanations.
Report.overview = (() => {
  const { el, number, percent, plural, duration, known } = Report.dom;
  const { table, section, more } = Report.tables;
  const { lines, legend } = Report.charts;
  const REINFORCE = "reinforce"; // A training whose loss is not to fall.

  function render(data) {
    const parts = [
      data.live && Report.live.progress(data.live),
      figures(data),
      data.live && Report.live.hosts(data.live.hosts),
      data.live && Report.live.samples(data.live.samples),
      ...data.accuracy.map(accuracy),
      solved(data.solved),
      unsolved(data.unsolved),
      models(data),
      ...data.decisions.map(Report.decisions.of),
      losses(data.losses),
      Report.costs.time(data.time),
      Report.costs.candidates(data.sets, data.grader),
      ...data.study.map(study),
      contents(data.sets),
      settings(data.config),
    ].filter(Boolean);
    return el("div", { class: "overview" },
      el("h1", {}, `How the run ${data.live ? "goes" : "went"}`), parts);
  }

  // Returns the four most important numbers.
  function figures(data) {
    const found = [];
    const first = data.accuracy[0];
    if (first) {
      const best = first.lines.find((l) => l.method === "mcts") ||
        first.lines.find((l) => l.method === "policy") || first.lines[0];
      const last = best.points[best.points.length - 1];
      const policy = first.lines.find((l) => l.method === "policy");
      const base = policy && policy.points.find((p) => p.round === 0);
      found.push([percent(last.accuracy, 0), "test problems right",
        `${best.name}, round ${last.round}` +
        (base ? `; the base model alone ${percent(base.accuracy, 0)}` : "")]);
    }
    const done = data.solved[data.solved.length - 1];
    if (done) {
      found.push([percent(done.share, 0), "training problems solved",
        `in the trees of round ${done.round}`]);
    }
    const ppm = data.ppm[data.ppm.length - 1];
    if (ppm && known(ppm.final.accuracy)) {
      found.push([percent(ppm.final.accuracy, 0),
        `${ppm.kind.toUpperCase()} prefers the right one`,
        `of ${plural(ppm.final.pairs, "held-out pair")} of solutions, round ` +
        ppm.round]);
    }
    if (data.time.length) {
      const total = data.time.reduce((sum, each) => sum + each.seconds, 0);
      found.push([duration(total), "recorded time", "of the first host"]);
    }
    return found.length > 0 && el("ul", { class: "figures" },
      found.map(([value, name, note]) => el("li", {},
        el("span", { class: "value" }, value),
        el("span", { class: "what" }, name),
        el("span", { class: "note" }, note))));
  }

  function interval(point) {
    if (!point) return "–";
    const accuracy = (100 * point.accuracy).toFixed(1);
    if (!known(point.low)) return accuracy;
    return `${accuracy} [${(100 * point.low).toFixed(1)}, ` +
      `${(100 * point.high).toFixed(1)}]`;
  }

  function accuracy(split, index) {
    const points = split.lines.flatMap((line) => line.points);
    const rounds = [...new Set(points.map((p) => p.round))]
      .sort((a, b) => a - b);
    const series = split.lines.map((each) => ({
      points: each.points.map((p) => ({
        x: p.round, y: p.accuracy, low: p.low, high: p.high,
        title: `${each.name}, round ${p.round}: ${interval(p)} % of ` +
          plural(p.n, "problem"),
      })),
    }));
    const counts = points.map((p) => p.n).filter(known);
    const [few, many] = [Math.min(...counts), Math.max(...counts)];
    const at = (line, round) => line.points.find((p) => p.round === round);
    return section(`accuracy-${index}`, `Accuracy on ${split.split}`,
      "Problems that nothing was trained on. Round 0 is the model that the " +
      "run began with; bars are 95% intervals over problems. “Any sample " +
      "right” is the ceiling of every way to choose among the samples." +
      (few < many ? ` A point is of ${few} to ${many} problems: the table ` +
        "says of how many." : ""),
      legend(split.lines.map((l) => l.name)),
      lines(series, { label: `Accuracy by round on ${split.split}`, floor: 0,
        ceiling: 1, format: (v) => percent(v, 0), xs: rounds, xName: "round",
        dodge: true }),
      more("The same as a table", table(
        ["Round", ...split.lines.map((l) => l.name), "Problems"],
        rounds.map((round) => [round,
          ...split.lines.map((l) => interval(at(l, round))),
          [...new Set(split.lines.map((l) => at(l, round)?.n)
            .filter(known))].join(", ")]),
        "Accuracy in percent with 95% intervals"), table(
        ["Round", ...split.lines.map((l) => l.name)],
        rounds.map((round) => [round, ...split.lines.map((l) =>
          number(at(l, round)?.tokens_per_problem))]),
        "Generated tokens a problem"),
      el("p", { class: "note" }, "The second table: generated tokens a " +
        "problem.")));
  }

  function solved(rows) {
    if (!rows.length) return null;
    const named = rows.flatMap((row) => Object.keys(row.levels || {}));
    const levels = [...new Set(named)].sort((a, b) =>
      a.localeCompare(b, "en", { numeric: true }));
    const cell = (row, level) => {
      const each = (row.levels || {})[level];
      return each ? `${percent(each.solved / each.problems, 0)} ` +
        `(${each.solved}/${each.problems})` : "–";
    };
    return section("solved", "Training problems that the search solved",
      "A problem is solved where at least one answer in the trees of its " +
      "round is right.",
      table(["Round", "All", ...levels.map((l) =>
        (l === "None" ? "No level" : `Level ${l}`))],
        rows.map((row) => [row.round, percent(row.share),
          ...levels.map((level) => cell(row, level))]),
        "Share of training problems solved, by level"));
  }

  function unsolved(data) {
    if (!data || !data.count) return null;
    const rows = data.rows.map((row) => [
      el("a", { href: Report.route.link({ view: "problems", set: "training",
        search: row.problem_id }) }, row.problem_id),
      row.suspect ? "⚠ perhaps mislabelled" : "not found",
      row.level ?? "–", row.gold ?? "–", row.agreed ?? "–",
      `${row.votes} of ${row.answers}`, number(row.rollouts)]);
    return section("unsolved", "Problems that stay unsolved",
      `After round ${data.round}, ${plural(data.count, "problem")} had no ` +
      `right answer in any tree. ${data.suspects || "None"} of them ` +
      `${data.suspects > 1 ? "are" : "is"} suspect. A problem is suspect ` +
      "where most solutions agree on one other answer: the given answer may " +
      "be at fault, or all err alike. A person has to look.",
      more(`Show ${rows.length < data.count ? `the first ${rows.length}` :
        "them"}`, table(["Problem", "", "Level", "Given answer",
        "Most frequent answer", "Votes", "Rollouts"], rows,
      "Unsolved problems, the most suspicious first")));
  }

  function models(data) {
    if (!data.ppm.length && !data.quality.length) return null;
    const share = (each) => known(each.accuracy) ?
      `${percent(each.accuracy)} (${number(each.pairs)})` : "–";
    return section("ppm", "How good the reward models are",
      "The process preference model (PPM) is asked which of two steps, or " +
      "solutions, is the better one, for pairs held out of its training; " +
      "50% is a coin. The number of pairs is in parentheses: a few pairs say " +
      "little.",
      data.ppm.length > 0 && table(
        ["Round", "Model", "Steps", "Whole solutions", "Trained on"],
        data.ppm.map((each) => [each.round, each.kind.toUpperCase(),
          share(each.step), share(each.final),
          known(each.pairs) ? plural(each.pairs, "pair") : "–"]),
        "Held-out pairs that the PPM orders rightly"),
      data.quality.length > 0 && [
        el("h3", {}, "Measured on trees that none was trained on"),
        table(["Model", "Round", "AUC", "AUC within a problem",
          "Calibration error", "Solutions"],
        data.quality.map((each) => [each.reward, each.round,
          each.auc?.toFixed(3) ?? "–", each.auc_within?.toFixed(3) ?? "–",
          each.calibration_error?.toFixed(3) ?? "–", number(each.solutions)]),
        "Quality of reward models")]);
  }

  function losses(curves) {
    if (!curves.length) return null;
    const kinds = [...new Set(curves.map((each) => each.kind))];
    const names = { sft: "Policy", ppm: "PPM", orm: "ORM", pqm: "PQM",
      [REINFORCE]: "Policy, by reinforcement" };
    return section("losses", "Training losses",
      "The loss of each training over its updates. It should fall and then " +
      "flatten; the rounds have different data, so that their ends are not " +
      "compared." + (kinds.includes(REINFORCE) ? " By reinforcement it " +
        "stays around 0, above or below, since gains and costs of a group " +
        "balance: the rewards in metrics.jsonl say whether the policy " +
        "learns." : ""),
      el("div", { class: "multiples" }, kinds.map((kind) => {
        const own = curves.filter((each) => each.kind === kind);
        const values = own.flatMap((each) => each.points.map(([, y]) => y));
        return el("figure", {},
          el("figcaption", {}, names[kind] || kind.toUpperCase()),
          legend(own.map((each) => `round ${each.round}`),
            own.map((each) => each.round), false),
          lines(own.map((each) => ({ look: each.round, points:
            each.points.map(([x, y]) => ({ x, y, title: "" })) })),
          { label: `Loss of ${names[kind] || kind}, by update`, width: 420,
            height: 220, markers: false, floor: Math.min(0, ...values),
            xName: "update", format: (v) => Number(v.toPrecision(2)) }),
          el("p", { class: "note" }, `Last values: ${own.map((e) =>
            last(e.points)).join(", ")}.`),
          heldOut(own));
      })));
  }

  function last(points) {
    return points[points.length - 1][1].toPrecision(3);
  }

  function heldOut(curves) {
    const own = curves.filter((each) => each.held_out.length);
    return own.length > 0 && more("On held-out problems",
      table(["Round", "Update", "Loss"], own.flatMap((each) =>
        each.held_out.map(([step, loss]) =>
          [each.round, number(step), loss.toPrecision(3)])),
      "Loss on held-out problems"));
  }

  function study(each) {
    const shown = each.blocks.map((block) => {
      if (block.heading) return el("h3", {}, block.heading);
      if (block.text) return el("p", { class: "meaning" }, block.text);
      return table(block.head, block.rows, "Methods compared");
    });
    return section(`study-${each.round}`,
      `Methods compared, with the models of round ${each.round}`,
      "Every way to answer, on the same problems: what each found, and what " +
      "it cost.", more("Show the tables", shown));
  }

  function contents(sets) {
    const drawn = sets.reduce((sum, each) => sum + each.drawn, 0);
    const read = sets.reduce((sum, each) => sum + each.problems, 0);
    return sets.length > 0 && section("contents", "What this page holds",
      `${plural(drawn, "tree")}, of ${plural(read, "problem")} in all sets. ` +
      "There is room for so many bytes: the newest round comes " +
      "first, in it the evaluation, and each set takes at most half of what " +
      "is left. The records hold every tree.",
      more("By set", table(["Trees", "Problems", "Listed", "Drawn"],
        sets.map((each) => [`${each.set}, round ${each.round}`,
          number(each.problems), number(each.listed), number(each.drawn)]),
        "Trees of the run and of this page")));
  }

  function settings(config) {
    return section("settings", "Settings", null, more("The run's config",
      el("pre", { tabindex: 0 }, JSON.stringify(config, null, 2))));
  }

  return { render };
})();

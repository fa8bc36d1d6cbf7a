"use strict";

// Asks the server of the page what is new, and shows it while it is read.
Report.live = (() => {
  const { el, percent, number, duration, known } = Report.dom;
  const { table, section } = Report.tables;
  const EVERY = 2000; // Milliseconds between two questions.
  const PATIENCE = 30000; // Milliseconds that an answer may take.
  const QUIET = 120; // Seconds without a sign of life that are worth a word.
  const BY = { greedy: "policy, greedy", samples: "policy, sampled",
    search: "search" };
  const bar = el("p", { class: "live", id: "live" });
  let version = null, since = null, state = "";

  async function ask(name) {
    const answer = await fetch(name, { cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(await answer.text());
    return answer;
  }

  // Says how the run is: a word for its look, and a sentence.
  function mood(now) {
    if (now.error) return ["bad", `The folder cannot be read: ${now.error}`];
    if (now.age === null) return ["quiet", "Nothing is there yet"];
    const ago = `${duration(now.age)} ago`;
    if (now.done) return ["quiet", `The run is done; it last wrote ${ago}`];
    if (now.age > QUIET) {
      return ["quiet", `Last sign of life ${ago}: it compiles or waits, ` +
        "or it has stopped"];
    }
    return ["good", `Live: last sign of life ${ago}`];
  }

  function tell([look, text]) {
    bar.className = `live ${look}`;
    bar.textContent = text;
    if (look !== state && state) Report.dom.say(text);
    state = look;
  }

  async function look() {
    let now;
    try {
      now = await (await ask("now")).json();
      since = null;
    } catch {
      since ??= new Date().toLocaleTimeString("en", { hour12: false });
      tell(["bad", `The server of this page is gone since ${since}; what you ` +
        "see is of then. Start it again: rstar_jax watch"]);
      return;
    }
    // At first, too: this question may have had the folder read.
    if (now.version !== version) {
      await Report.app.renew();
      version = now.version;
    }
    tell(mood(now));
    age(now.read);
  }

  // Lets times go on that were so long ago when they were read.
  function age(more) {
    for (const each of document.querySelectorAll("[data-age]")) {
      const text = `${duration(Number(each.dataset.age) + more)} ago`;
      if (each.textContent !== text) each.textContent = text;
    }
  }

  // Begins once the page shows something, which `look` then renews.
  async function go() {
    // A page that nobody sees asks nothing.
    if (!document.hidden) await look().catch((error) => console.error(error));
    setTimeout(go, EVERY);
  }

  function progress(data) {
    if (!data.begun) {
      return section("progress", "Where it is", data.said || "No run was " +
        "begun here yet. This page shows it as soon as there is one.");
    }
    return section("progress", "Where it is",
      `${data.summary[0].toUpperCase()}${data.summary.slice(1)}. ` +
      `Time left: ${data.left}.`,
      table(data.head, data.rows, "Stages by round"),
      data.studies.map((line) => el("p", { class: "note" }, line)));
  }

  function hosts(rows) {
    return rows.length > 0 && section("hosts", "Who works",
      "What each host wrote last, and the shards of which it has found a " +
      "part. Tokens are those generated, or trained on; “slots in use” is " +
      "the share of the engine's token slots that had work.",
      table(["Host", "Doing", "Step", "Shards", "Last wrote", "Tokens/s",
        "Slots in use", "Loss"], rows.map((each) => [each.host,
        each.stage.replace(/_/g, " "), number(each.step) +
          (each.of ? ` of ${number(each.of)}` : ""), number(each.shards),
        el("span", { "data-age": each.age }, `${duration(each.age)} ago`),
        number(each.rate), percent(each.full, 0),
        known(each.loss) ? each.loss.toPrecision(3) : "–"]),
      "Hosts and what they do"));
  }

  function samples(rows) {
    return rows.length > 0 && section("samples", "What the model writes now",
      "The last solutions, the newest first. One that you open stays.",
      rows.map(sample));
  }

  function sample(each) {
    const [look, mark] = { equal: ["good", "✓ right"],
      different: ["bad", "✗ wrong"], failed: ["bad", "✗ no answer"] }[
      each.verdict] || ["note", "? undecided"];
    const name = [each.set, each.round, each.by, each.id].join(" ");
    return el("details", { "data-key": `sample ${name}` },
      el("summary", {}, el("span", { class: look }, mark),
        ` ${each.question || each.id}`),
      el("p", { class: "note" }, `Round ${each.round}, ` +
        `${each.set === "test" ? "evaluation" : "training"}, ` +
        `${BY[each.by] || each.by}: ${each.id}`),
      el("pre", { tabindex: 0 }, each.steps.join("")));
  }

  Report.data.from(async (id) => (await ask(id)).text());
  document.querySelector(".top").append(bar);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look().catch((error) => console.error(error));
  });
  return { go, progress, hosts, samples };
})();

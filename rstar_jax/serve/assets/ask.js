"use strict";

// The page: a question and a budget go to the server, the tree is drawn while
// it grows, and then the solution beside the whole tree. All text of the model
// becomes text nodes.
Report.ask = (() => {
  const { el, signed, number, plural, known, say, duration } = Report.dom;
  const METHODS = { search: "Search", best_of_n: "Best of samples, by the PPM",
    majority: "Vote of samples", greedy: "Likeliest solution" };
  const SIZES = { search: ["rollouts", "candidates"], majority: ["samples"],
    best_of_n: ["samples"], greedy: [] };
  const EVERY = 250; // Milliseconds between two drawings.
  const FOLDED = 60; // Trees of so many nodes have untried nodes folded.
  const COLUMNS = ["parent", "kind", "correct", "q", "ppm", "logprob", "text",
    "own_visits", "own_sum"];
  const main = document.getElementById("main");
  const ui = {}; // Elements by name.
  const kept = []; // What was answered, oldest first.
  let model = "", token = "", running = null, leave = () => {};

  // Asks the server; fails with its words.
  async function request(path, body, signal) {
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(path, { headers, signal, cache: "no-store",
      method: body ? "POST" : "GET", body: body && JSON.stringify(body) });
    if (answer.ok) return answer;
    ui.access.hidden = ui.access.hidden && answer.status !== 401;
    if (answer.status === 401) ui.token.focus();
    const found = await answer.json().catch(() => null);
    throw new Error(found?.error?.message || `HTTP ${answer.status}`);
  }

  // Yields the JSON of each event of a stream.
  async function* events(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream())
      .getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        if (!block.startsWith("data: ")) continue;
        const text = block.slice("data: ".length);
        if (text === "[DONE]") return;
        yield JSON.parse(text);
      }
    }
  }

  function asked() {
    const budget = { method: ui.method.value };
    for (const name of [...SIZES[budget.method], "seed"]) {
      if (ui[name].value !== "") budget[name] = Number(ui[name].value);
    }
    return { question: ui.question.value.trim(), budget };
  }

  async function start(event) {
    event?.preventDefault();
    const { question, budget } = asked();
    if (!question || running) return;
    running = new AbortController();
    const began = performance.now();
    const live = { question, tests: "", gold: null, chosen: [], pairs: [],
      answer: {}, growth: [], tokens: 0 };
    for (const name of COLUMNS) live[name] = [];
    busy(true);
    show(null);
    Report.route.replace({ question, ...budget });
    const seconds = () => (performance.now() - began) / 1000;
    const clock = setInterval(() => tell(`${plural(live.tokens, "token")}, ` +
      `${plural(Math.max(live.text.length - 1, 0), "step")}, ` +
      duration(seconds())), 1000);
    tell("The question is sent");
    try {
      const answer = await request("v1/chat/completions", {
        messages: [{ role: "user", content: question }], stream: true,
        tree: true, ...budget }, running.signal);
      for await (const each of events(answer)) {
        if (each.error) throw new Error(each.error.message);
        const more = each.choices[0]?.rstar_jax;
        if (more?.grown) grow(live, more.grown);
        if (more?.budget) finish({ question, ...more, seconds: seconds() });
      }
    } catch (error) {
      leave();
      tell(running.signal.aborted ? "Stopped" : String(error.message), true);
    } finally {
      clearInterval(clock);
      running = null;
      busy(false);
    }
  }

  // Adds what is new of the tree, and draws it if it was not drawn just now.
  function grow(live, news) {
    for (const name of COLUMNS) live[name].push(...news[name]);
    live.growth.push(...news.growth);
    Object.assign(live.answer, news.answer);
    live.tokens = news.tokens;
    if (live.timer) return;
    draw(live);
    live.timer = setTimeout(() => {
      live.timer = null;
      if (running && ui.canvas.isConnected) draw(live);
    }, EVERY);
  }

  function draw(live) {
    const size = live.parent.length;
    const tree = Report.data.withShape(Report.data.backedUp(live,
      live.growth.length, size));
    const layout = Report.layout.place(tree, size > FOLDED, new Set());
    const { drawn } = Report.draw.tree(tree, layout);
    Report.draw.lines(drawn, tree, layout, size);
    drawn.setAttribute("width", layout.width);
    drawn.setAttribute("height", layout.height);
    // It is read and walked once it is whole.
    drawn.setAttribute("aria-hidden", "true");
    drawn.removeAttribute("tabindex");
    ui.canvas.replaceChildren(drawn);
    if (!ui.canvas.isConnected) ui.result.replaceChildren(ui.canvas);
  }

  function finish(found) {
    kept.push(found);
    list();
    show(found);
    const said = found.answer === null ? "No answer was reached" :
      `Answer: ${found.answer}`;
    tell(`${said}. ${plural(found.tokens, "token")} in ` +
      duration(found.seconds));
    say(said);
  }

  // Shows an answer, or nothing.
  function show(found) {
    leave();
    leave = () => {};
    for (const each of ui.kept.querySelectorAll("tr")) {
      each.removeAttribute("aria-current");
    }
    if (!found) {
      ui.result.replaceChildren();
      return;
    }
    ui.kept.querySelectorAll("tbody tr")[kept.indexOf(found)]
      ?.setAttribute("aria-current", "true");
    const shown = [solution(found)];
    if (found.tree) {
      const tree = Report.data.withShape(found.tree);
      const row = { set: "asked", id: found.question };
      const drawn = Report.tree.render(tree, row, {}, [
        el("h2", {}, "The search")], () => {});
      leave = drawn.leave;
      shown.push(drawn.page);
    }
    ui.result.replaceChildren(...shown);
  }

  function solution(found) {
    const head = found.answer === null ? "No candidate reached an answer" :
      ["Answer: ", el("span", { class: "boxed" }, found.answer)];
    return el("section", { class: "card solution",
      "aria-labelledby": "solution" },
    el("h2", { id: "solution" }, head),
    el("ol", {}, found.steps.map((text, index) => {
      const { code } = Report.text.parts(text);
      const [output, value] = [found.outputs[index], found.values?.[index]];
      const last = text.includes("<answer>");
      return el("li", {},
        el("p", { class: "note" }, last ? "Answer" : `Step ${index + 1}`,
          known(value) && el("span", { class: "value" },
            `PPM ${signed(value)}`)),
        el("pre", { class: "code", tabindex: 0 }, code),
        output !== null && el("pre", { class: "output", tabindex: 0 },
          output || "(nothing)"));
    })));
  }

  function words({ method, ...sizes }) {
    return [METHODS[method].toLowerCase(), ...SIZES[method].map((name) =>
      `${number(sizes[name])} ${name}`)].join(", ");
  }

  // Lists what was answered, so that budgets can be compared.
  function list() {
    const cell = (text) => el("td", { class: "number" }, text);
    ui.kept.replaceChildren(el("table", {},
      el("caption", { class: "hidden" }, "Answers so far"),
      el("thead", {}, el("tr", {}, ["Question", "Budget", "Answer", "Tokens",
        "Seconds"].map((name, column) => el("th", { scope: "col",
        class: column > 2 ? "number" : null }, name)))),
      el("tbody", {}, kept.map((each) => el("tr", {},
        el("td", {}, el("button", { type: "button", class: "link",
          onclick: () => show(each) }, Report.dom.clip(each.question, 48))),
        el("td", {}, words(each.budget)), el("td", {}, each.answer ?? "–"),
        cell(number(each.tokens)), cell(each.seconds.toFixed(1)))))));
  }

  function tell(text, bad = false) {
    ui.state.textContent = text;
    ui.state.className = bad ? "bad" : "note";
    if (bad) say(text);
  }

  function busy(now) {
    ui.ask.disabled = now;
    ui.stop.disabled = !now;
    main.classList.toggle("busy", now);
    main.setAttribute("aria-busy", String(now));
  }

  // Shows the sizes that the method has.
  function sizes() {
    for (const name of ["rollouts", "candidates", "samples"]) {
      ui[name].parentNode.hidden = !SIZES[ui.method.value].includes(name);
    }
  }

  function field(name, label, control) {
    ui[name] = control;
    control.id = name;
    return el("label", {}, label, control);
  }

  const count = (name, label) => field(name, label, el("input", {
    type: "number", min: 1, step: 1, inputmode: "numeric" }));

  function form() {
    const made = el("form", { class: "card ask", onsubmit: start },
      field("question", "Question", el("textarea", { rows: 3, required: true,
        onkeydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            start(event);
          }
        } })),
      el("div", { class: "budget" },
        field("method", "Method", el("select", { onchange: sizes })),
        count("rollouts", "Rollouts"), count("candidates", "Candidates"),
        count("samples", "Samples"),
        field("seed", "Seed", el("input", { type: "number", step: 1,
          placeholder: "the server’s" }))),
      ui.access = el("div", { class: "budget", hidden: true },
        field("token", "Token of this server", el("input", {
          type: "password", autocomplete: "off", onchange: (event) => {
            token = event.target.value;
            load();
          } }))),
      el("div", { class: "act" },
        ui.ask = el("button", { type: "submit", class: "main" }, "Ask"),
        ui.stop = el("button", { type: "button", disabled: true,
          onclick: () => running?.abort() }, "Stop"),
        ui.state = el("span", { class: "note" })));
    return made;
  }

  // Asks what the server has, and offers it.
  async function load() {
    let found;
    try {
      found = (await (await request("v1/models")).json()).data[0];
    } catch (error) {
      tell(String(error.message), true);
      return;
    }
    ui.access.hidden = true;
    tell("");
    model = found.id;
    document.querySelector(".brand .name").textContent = model;
    document.title = `${model} · rStar-Math`;
    const { methods, budget, solutions } = found.rstar_jax;
    const given = { ...budget, ...Report.route.read() };
    ui.method.replaceChildren(...methods.map((name) =>
      el("option", { value: name }, METHODS[name])));
    ui.method.value = methods.includes(given.method) ? given.method :
      methods[0];
    for (const name of ["rollouts", "candidates", "samples"]) {
      ui[name].max = solutions;
      ui[name].value = given[name];
    }
    if (given.seed) ui.seed.value = given.seed;
    if (given.question && !ui.question.value) {
      ui.question.value = given.question;
    }
    sizes();
  }

  async function begin() {
    Report.theme.start(document.getElementById("theme"));
    main.dataset.view = "tree"; // Styled as the report's page of that name.
    ui.canvas = el("div", { class: "canvas" });
    ui.kept = el("div", { class: "kept scroll" });
    ui.result = el("div", { class: "result" });
    main.replaceChildren(el("h1", {}, "Ask a question"), form(), ui.kept,
      ui.result);
    await load();
    document.documentElement.dataset.ready = "true";
  }

  begin();
  return { busy: () => running !== null };
})();

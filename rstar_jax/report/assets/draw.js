"use strict";

// Draws a laid-out tree: the kind of a node by shape, Q by colour and number,
// visits by size, the chosen solution by a thick line.
Report.draw = (() => {
  const { svg, signed, clip, plural } = Report.dom;
  const [STEP, CODE, ANSWER] = [1, 2, 3];
  const [WRONG, RIGHT] = [0, 1];
  const SHADES = 9; // Number of colours for Q, from -1 to 1.
  const SNIPPET = 20;

  const shade = (q) =>
    Math.round(((Math.max(-1, Math.min(1, q)) + 1) / 2) * (SHADES - 1));
  const radius = (visits) => Math.min(13, 4.5 + 1.6 * Math.log2(1 + visits));
  const id = (place) =>
    place.rest ? `rest-${place.owner}` : `node-${place.node}`;

  // Returns the oldest node of a place.
  const first = (place) => (place.rest ? place.rest[0] : place.node);

  function kind(tree, node) {
    return ["question", "step", "code", "answer"][tree.kind[node]];
  }

  // Returns a short text of a node: comment or first line, output or answer.
  function snippet(tree, node, length = SNIPPET) {
    if (!node) return "question";
    if (tree.kind[node] === ANSWER) {
      return clip(`= ${tree.answer[node] ?? "?"}`, length);
    }
    const parts = Report.text.parts(tree.text[node]);
    if (tree.kind[node] === CODE && parts.output.trim()) {
      return clip(`prints ${parts.output.trim().split("\n")[0]}`, length);
    }
    const first = parts.code.split("\n").find((line) => line.trim()) || "";
    return clip(first.replace(/^\s*#\s*/, ""), length);
  }

  function verdict(tree, node) {
    if (tree.kind[node] !== ANSWER) return "";
    if (tree.correct[node] === RIGHT) return "right";
    return tree.correct[node] === WRONG ? "wrong" : "not graded";
  }

  // Returns the label of a node for screen readers.
  function spoken(tree, node) {
    const name = node ? `${kind(tree, node)} ${tree.depth[node]}` : "";
    return [`${signed(tree.q[node])} ${snippet(tree, node)}`, name,
      verdict(tree, node), plural(tree.visits[node], "visit"),
      tree.onPath.has(node) && node ? "on the chosen solution" : "",
      tree.tried[node] ? "" : "never tried"].filter(Boolean).join(", ");
  }

  function outline(tree, node, r) {
    switch (tree.kind[node]) {
      case CODE:
        return svg("rect", { class: "shape", x: -r, y: -r, width: 2 * r,
          height: 2 * r, rx: 2.5 });
      case ANSWER: {
        const d = r * 1.3;
        return svg("path", { class: "shape",
          d: `M0 ${-d}L${d} 0L0 ${d}L${-d} 0Z` });
      }
      case STEP:
        return svg("circle", { class: "shape", r });
      default:
        return svg("path", { class: "shape root",
          d: `M${-r} ${-r}H${0.4 * r}L${1.2 * r} 0L${0.4 * r} ${r}H${-r}Z` });
    }
  }

  function glyph(tree, node) {
    const mark = { right: "✓", wrong: "✗", "not graded": "?" }[
      verdict(tree, node)];
    return mark && svg("text", { class: "glyph", y: 4 }, mark);
  }

  function item(place, type, label, ...content) {
    return svg("g", { id: id(place), class: type, role: "treeitem",
      transform: `translate(${place.x} ${place.y})`, "aria-label": label,
      "aria-level": place.depth + 1, "aria-setsize": place.siblings,
      "aria-posinset": place.position }, content);
  }

  function nodeItem(tree, place) {
    const { type, label, content } = look(tree, place.node);
    return item(place, type, label, content);
  }

  // Returns the appearance of a node, which changes in a replay.
  function look(tree, node) {
    // An answer must have room for its glyph.
    const least = tree.kind[node] === ANSWER ? 7 : 0;
    const r = Math.max(least, radius(tree.tried[node] ? tree.visits[node] : 0));
    const type = ["node", `q${shade(tree.q[node])}`,
      tree.tried[node] ? "" : "untried",
      tree.onPath.has(node) ? "chosen" : ""].filter(Boolean).join(" ");
    const aside = (tree.kind[node] === ANSWER ? 1.3 * r : r) + 7;
    return { type, label: spoken(tree, node), content: [
      svg("circle", { class: "halo", r: aside - 2 }),
      outline(tree, node, r), glyph(tree, node), words(tree, node, aside)] };
  }

  // Redraws the nodes that differ between a tree and the one before.
  function change(items, layout, before, now) {
    if (before === now) return;
    layout.places.forEach(({ node, rest }, index) => {
      if (rest || ["q", "visits", "tried"].every((name) =>
        before[name][node] === now[name][node])) return;
      const { type, label, content } = look(now, node);
      items[index].setAttribute("class", type);
      items[index].setAttribute("aria-label", label);
      items[index].replaceChildren(...content.flat().filter(Boolean));
    });
  }

  // Draws Q and a short text beside a node, in one line if its row is low.
  function words(tree, node, x) {
    const q = signed(tree.q[node]);
    if (Report.layout.low(tree, node)) {
      return svg("text", { class: "words", x, y: 4 },
        svg("tspan", { class: "q" }, q), ` ${snippet(tree, node)}`);
    }
    // The space is for screen readers.
    return [svg("text", { class: "q", x, y: -5 }, q), " ",
      svg("text", { class: "words", x, y: 13 }, snippet(tree, node))];
  }

  function restItem(place) {
    const label = `${place.rest.length} not tried`;
    const drawn = item(place, "rest", `${label}; press Enter to show them`,
      svg("rect", { class: "halo", x: -13, y: -15, width: 92, height: 30,
        rx: 15 }),
      svg("rect", { class: "pill", x: -9, y: -11, width: 84, height: 22,
        rx: 11 }),
      svg("text", { class: "words", x: 33, y: 4 }, label));
    drawn.setAttribute("aria-expanded", "false");
    return drawn;
  }

  // Returns the drawing, and the element of each place by its id.
  function tree(data, layout) {
    const items = layout.places.map((place) =>
      place.rest ? restItem(place) : nodeItem(data, place));
    const drawn = svg("svg", { class: "tree", role: "tree", tabindex: 0,
      "aria-label": `Search tree, ${plural(data.parent.length, "node")}. ` +
        "Arrow keys walk it, Enter reads a node.",
      viewBox: `0 0 ${layout.width} ${layout.height}` },
      // One element for all lines: thousands of elements would be slow.
      svg("path", { class: "line", role: "presentation" }),
      svg("path", { class: "line chosen", role: "presentation" }), items);
    return { drawn, items };
  }

  // Returns the path of lines to all places with a node below `limit`.
  function lines(drawn, data, layout, limit) {
    const plain = [], strong = [];
    for (const place of layout.places) {
      if (!place.parent || first(place) >= limit) continue;
      const on = !place.rest && data.onPath.has(place.node);
      (on ? strong : plain).push(Report.layout.line(place.parent, place));
    }
    drawn.querySelector(".line").setAttribute("d", plain.join(""));
    drawn.querySelector(".line.chosen").setAttribute("d", strong.join(""));
  }

  return { tree, change, lines, first, id, snippet, verdict };
})();

// Parses a node's text by the step grammar (steps/grammar.py).
Report.text = (() => {
  const OUTPUT = /\n?<output>([\s\S]*?)<end_of_output>\n?/;
  const MARKERS =
    /<(?:code|answer|end_of_step|end_of_code|end_of_answer)>/g;

  // Returns the policy's text, and the program's output if there is one.
  function parts(text) {
    const match = OUTPUT.exec(text);
    const written = match ? text.replace(OUTPUT, "") : text;
    return {
      code: written.replace(MARKERS, "").replace(/^\n+|\s+$/g, ""),
      output: match ? match[1] : "",
      ran: Boolean(match),
    };
  }

  return { parts };
})();

"use strict";

// The page of one problem: its tree, the selected node, and the keyboard.
Report.tree = (() => {
  const { el } = Report.dom;
  const MANY = 60; // Trees of so many nodes have untried nodes folded.
  const [LEAST, MOST] = [0.1, 2]; // Zoom.
  const LEGIBLE = 0.85; // The least zoom at which a tree is first shown.

  // Draws a problem, below the elements `above`. `fields` are those of the
  // address; `save` gets them when they change.
  function render(tree, row, fields, above, save) {
    const state = {
      tree, row, save,
      now: tree, // With the visits and Q at this point of the replay.
      node: valid(tree, fields.node),
      rest: null, // The parent of folded siblings, if those are selected.
      folded: tree.parent.length > MANY,
      opened: new Set(),
      zoom: 1,
      limit: tree.parent.length, fresh: tree.parent.length,
    };
    const canvas = el("div", { class: "canvas" });
    const panel = el("aside", { class: "detail", id: "detail", tabindex: -1,
      "aria-labelledby": "detail-title",
      onkeydown: (event) => {
        if (event.key === "Escape") canvas.firstChild.focus();
      } });
    const ui = { canvas, panel };
    const replay = Report.replay.make(tree,
      fields.rollout === undefined ? tree.growth.length :
        Number(fields.rollout) || 0,
      (rollout, limit, fresh) => {
        const before = state.now;
        Object.assign(state, { limit, fresh,
          now: Report.data.after(tree, rollout) });
        Report.draw.change(state.items, state.layout, before, state.now);
        fade(state);
        tell(state, ui);
        keep(state, ui);
      });
    ui.replay = replay;
    const page = el("div", { class: "problem" },
      above, Report.guide.legend(row),
      el("div", { class: "tools" }, replay.element, tools(state, ui)),
      el("div", { class: "split" }, canvas, panel));
    draw(state, ui);
    replay.apply();
    // Only an element on the page has a size and a scroll position.
    requestAnimationFrame(() => {
      state.zoom = Math.max(LEGIBLE, Math.min(1, fitting(state, ui)));
      size(state, ui);
      reveal(state, ui, true);
    });
    return { page, leave: replay.stop };
  }

  function valid(tree, text) {
    const node = Number(text);
    const known = Number.isInteger(node) && node >= 0 &&
      node < tree.parent.length;
    return text !== undefined && known ? node : 0;
  }

  function tools(state, ui) {
    const button = (text, label, act) => el("button", { type: "button",
      "aria-label": label, title: label, onclick: act }, text);
    const zoom = (factor) => () => scale(state, ui, state.zoom * factor);
    return el("div", { class: "view", role: "group",
      "aria-label": "View of the tree" },
    el("label", {}, el("input", { type: "checkbox", id: "fold",
      checked: state.folded, onchange: (event) => {
        state.folded = event.target.checked;
        state.opened.clear();
        draw(state, ui);
        reveal(state, ui);
      } }), "fold steps never tried"),
    button("−", "Smaller", zoom(1 / 1.25)), button("+", "Larger", zoom(1.25)),
    button("Fit", "Fit the tree into the window", () =>
      scale(state, ui, Math.min(1, fitting(state, ui),
        ui.canvas.clientHeight / state.layout.height))));
  }

  // Returns the zoom at which the tree is as wide as its window.
  function fitting(state, ui) {
    return ui.canvas.clientWidth / state.layout.width;
  }

  function scale(state, ui, zoom) {
    state.zoom = Math.min(MOST, Math.max(LEAST, zoom));
    size(state, ui);
    reveal(state, ui);
  }

  function size(state, ui) {
    const drawn = ui.canvas.firstChild;
    drawn.setAttribute("width", state.layout.width * state.zoom);
    drawn.setAttribute("height", state.layout.height * state.zoom);
    drawn.classList.toggle("far", state.zoom < 0.55);
  }

  // Redraws the tree; then every place has its element.
  function draw(state, ui) {
    unfold(state);
    state.layout = Report.layout.place(state.tree, state.folded, state.opened);
    const { drawn, items } = Report.draw.tree(state.now, state.layout);
    Object.assign(state, { drawn, items });
    state.at = new Map(state.layout.places.map((place, index) =>
      [Report.draw.id(place), index]));
    drawn.addEventListener("click", (event) => {
      const index = items.indexOf(event.target.closest("[role=treeitem]"));
      if (index >= 0) pick(state, ui, state.layout.places[index], true);
    });
    drawn.addEventListener("keydown", (event) => press(state, ui, event));
    const focused = ui.canvas.contains(document.activeElement);
    ui.canvas.replaceChildren(drawn);
    if (focused) drawn.focus({ preventScroll: true });
    size(state, ui);
    mark(state, ui);
    fade(state);
  }

  // Unfolds the siblings that hide the selected node.
  function unfold(state) {
    const { tree, node } = state;
    if (state.rest === null && node && !tree.tried[node]) {
      state.opened.add(tree.parent[node]);
    }
  }

  function current(state) {
    const name = state.rest === null ? `node-${state.node}` :
      `rest-${state.rest}`;
    return state.at.get(name) ?? 0;
  }

  // Selects a place; a click or Enter unfolds folded siblings.
  function pick(state, ui, place, open) {
    if (place.rest && open) {
      state.opened.add(place.owner);
      state.rest = null;
      state.node = place.rest[0];
      draw(state, ui);
    } else if (place.rest) {
      state.rest = place.owner;
    } else {
      state.rest = null;
      state.node = place.node;
    }
    mark(state, ui);
    reveal(state, ui);
    keep(state, ui);
  }

  function go(state, ui, node) {
    state.rest = null;
    state.node = node;
    if (!state.at.has(`node-${node}`)) draw(state, ui);
    pick(state, ui, state.layout.places[state.at.get(`node-${node}`)]);
  }

  // Marks the selected node and shows its details beside the tree.
  function mark(state, ui) {
    const item = state.items[current(state)];
    for (const old of ui.canvas.querySelectorAll("[aria-selected]")) {
      old.removeAttribute("aria-selected");
    }
    item.setAttribute("aria-selected", "true");
    ui.canvas.firstChild.setAttribute("aria-activedescendant", item.id);
    tell(state, ui);
    ui.panel.scrollTop = 0;
  }

  // Shows the details of the selected node.
  function tell(state, ui) {
    if (state.rest !== null) return;
    ui.panel.replaceChildren(...Report.detail.render(state.now, state.node,
      state.row, (node) => go(state, ui, node)));
  }

  // Scrolls the tree, and nothing else, until the selected node is visible.
  function reveal(state, ui, middle) {
    const place = state.layout.places[current(state)];
    const { canvas } = ui;
    const aim = (at, from, room, span) => {
      if (!middle && at - 40 > from && at + span < from + room) return from;
      return at - room / 2;
    };
    canvas.scrollTo({
      left: aim(place.x * state.zoom, canvas.scrollLeft, canvas.clientWidth,
        150 * state.zoom),
      top: aim(place.y * state.zoom, canvas.scrollTop, canvas.clientHeight, 40),
    });
  }

  // Shows the tree with the nodes of this point of the replay.
  function fade(state) {
    Report.draw.lines(state.drawn, state.tree, state.layout, state.limit);
    state.layout.places.forEach((place, index) => {
      const first = Report.draw.first(place);
      const list = state.items[index].classList;
      list.toggle("later", first >= state.limit);
      list.toggle("fresh", first >= state.fresh && first < state.limit);
    });
  }

  function keep(state, ui) {
    const rollout = ui.replay?.rollout();
    state.save({ node: state.node, rollout: rollout === undefined ||
      rollout === ui.replay.last ? "" : rollout });
  }

  // Arrow keys: right to the most visited child, left to the parent, up and
  // down within a column.
  function press(state, ui, event) {
    const index = current(state);
    const { places } = state.layout;
    const place = places[index];
    const column = places.filter((p) => p.depth === place.depth)
      .sort((a, b) => a.y - b.y);
    const beside = (by) => column[column.indexOf(place) + by];
    const visits = (p) => (p.rest ? -1 : state.tree.visits[p.node]);
    const steps = {
      ArrowLeft: () => place.parent,
      ArrowRight: () => places.filter((p) => p.parent === place)
        .reduce((a, b) => (a && visits(a) >= visits(b) ? a : b), null),
      ArrowUp: () => beside(-1),
      ArrowDown: () => beside(1),
      Home: () => places[0],
      End: () => places[state.at.get(`node-${state.tree.chosen[0]}`)],
    };
    if (event.key === "Enter" || event.key === " ") {
      if (place.rest) pick(state, ui, place, true);
      else ui.panel.focus();
    } else if (steps[event.key] && !event.altKey && !event.ctrlKey &&
      !event.metaKey) {
      const next = steps[event.key]();
      if (next) pick(state, ui, next, false);
    } else {
      return;
    }
    event.preventDefault();
  }

  return { render };
})();

"use strict";

// Where the nodes of a tree are drawn: depth runs to the right, siblings down.
// The places themselves are d3-hierarchy's (Reingold and Tilford's tidy tree);
// here is what they are computed of, and which nodes are shown.
Report.layout = (() => {
  const COLUMN = 164; // Pixels from a step to the next one.
  const TALL = 40; // Height of a node with its texts.
  const LOW = 24; // Height of one that no rollout went through.
  const MARGIN = 34;

  // Returns the tree that is shown: {node, children}, or {rest: [nodes]} where
  // siblings that were never tried stand together.
  function visible(tree, folded, opened) {
    function make(node) {
      const children = tree.children[node];
      const rest = folded && !opened.has(node) ?
        children.filter((child) => foldable(tree, child)) : [];
      const apart = rest.length > 1 ? new Set(rest) : new Set();
      const shown = children
        .filter((child) => !apart.has(child))
        .map(make);
      if (apart.size) shown.push({ parent: node, rest: [...apart] });
      return { node, children: shown };
    }
    return make(0);
  }

  // A node may be hidden where nothing is below it and nothing refers to it.
  function foldable(tree, node) {
    return !tree.tried[node] && !tree.children[node].length &&
      !tree.onPath.has(node);
  }

  // Says whether a node has one line of text: nothing went through it.
  const low = (tree, node) => !tree.tried[node] && !tree.onPath.has(node);

  const height = (tree, data) =>
    data.rest || !low(tree, data.node) ? TALL : LOW;

  // Returns {places, width, height}: a place has x, y and either `node` or
  // `rest`, with the place of its parent. Places are in the order of the
  // drawing, parents first.
  function place(tree, folded, opened) {
    const root = d3.hierarchy(visible(tree, folded, opened));
    d3.tree()
      .nodeSize([1, COLUMN])
      .separation((a, b) =>
        (height(tree, a.data) + height(tree, b.data)) / 2)(root);
    let [top, bottom, right] = [Infinity, -Infinity, 0];
    root.each((each) => {
      top = Math.min(top, each.x);
      bottom = Math.max(bottom, each.x);
      right = Math.max(right, each.y);
    });
    const places = new Map();
    root.each((each) => {
      places.set(each, {
        node: each.data.node,
        rest: each.data.rest,
        owner: each.data.parent,
        depth: each.depth,
        x: each.y + MARGIN,
        y: each.x - top + MARGIN,
        parent: each.parent && places.get(each.parent),
        siblings: each.parent ? each.parent.children.length : 1,
        position: each.parent ? each.parent.children.indexOf(each) + 1 : 1,
      });
    });
    return {
      places: [...places.values()],
      width: right + COLUMN + MARGIN,
      height: bottom - top + 2 * MARGIN,
    };
  }

  // The line from a node to its child. It stays level under the node's texts.
  function line(from, to) {
    const level = from.x + 0.76 * COLUMN;
    const middle = (level + to.x) / 2;
    const [x, y, below] = [level, from.y, to.y].map((at) => at.toFixed(1));
    return `M${from.x} ${y}H${x}C${middle.toFixed(1)} ${y} ` +
      `${middle.toFixed(1)} ${below} ${to.x} ${below}`;
  }

  return { place, line, low };
})();

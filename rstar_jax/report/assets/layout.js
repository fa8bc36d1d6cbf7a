"use strict";

// Lays out the nodes of a tree: depth runs to the right, siblings down. The
// positions are computed by d3-hierarchy (tidy tree of Reingold and Tilford);
// this file chooses the nodes that are shown and their sizes.
Report.layout = (() => {
  const COLUMN = 164; // Pixels from a step to the next one.
  const TALL = 40; // Height of a node with its texts.
  const LOW = 24; // Height of a node that no rollout went through.
  const MARGIN = 34;

  // Returns the tree that is shown: {node, children}, or {rest: [nodes]} for
  // folded siblings that were never tried.
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

  // Returns whether a node can be folded: it has no children, and nothing
  // refers to it.
  function foldable(tree, node) {
    return !tree.tried[node] && !tree.children[node].length &&
      !tree.onPath.has(node);
  }

  // Returns whether a node has one line of text: no rollout went through it.
  const low = (tree, node) => !tree.tried[node] && !tree.onPath.has(node);

  const height = (tree, data) =>
    data.rest || !low(tree, data.node) ? TALL : LOW;

  // Returns {places, width, height}. A place has x, y, its parent's place, and
  // either `node` or `rest`. Places are in drawing order, parents first.
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

  // Returns the line from a node to its child, level under the node's texts.
  function line(from, to) {
    const level = from.x + 0.76 * COLUMN;
    const middle = (level + to.x) / 2;
    const [x, y, below] = [level, from.y, to.y].map((at) => at.toFixed(1));
    return `M${from.x} ${y}H${x}C${middle.toFixed(1)} ${y} ` +
      `${middle.toFixed(1)} ${below} ${to.x} ${below}`;
  }

  return { place, line, low };
})();

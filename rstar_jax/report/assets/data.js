"use strict";

// The data of the page: JSON in elements that the browser does not run. Trees
// are packed one by one, and unpacked when they are looked at.
Report.data = (() => {
  const KEPT = 6; // Unpacked trees that are held for the way back.
  const held = new Map();

  function text(id) {
    const block = document.getElementById(id);
    return block ? block.textContent : "";
  }

  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes])
      .stream()
      .pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  const overview = () => JSON.parse(text("overview"));

  // Names as an address can hold them: it has no half surrogates.
  async function problems() {
    const rows = await unpack(text("problems"));
    for (const row of rows) {
      row.id = row.id.toWellFormed();
      row.split = row.split.toWellFormed();
    }
    return rows;
  }

  async function tree(block) {
    if (!held.has(block)) {
      held.set(block, withShape(await unpack(text(`tree-${block}`))));
      if (held.size > KEPT) held.delete(held.keys().next().value);
    }
    return held.get(block);
  }

  // Adds what follows from the columns. Parents come before their children.
  function withShape(tree) {
    const size = tree.parent.length;
    tree.children = Array.from({ length: size }, () => []);
    tree.depth = new Array(size).fill(0);
    for (let node = 1; node < size; node++) {
      const parent = tree.parent[node];
      tree.children[parent].push(node);
      tree.depth[node] = tree.depth[parent] + 1;
    }
    tree.onPath = new Set();
    for (const end of tree.chosen) {
      for (const node of path(tree, end)) tree.onPath.add(node);
    }
    return tree;
  }

  // Returns the nodes from the root to a node.
  function path(tree, node) {
    const nodes = [];
    for (let at = node; at >= 0; at = tree.parent[at]) nodes.push(at);
    return nodes.reverse();
  }

  // Returns in which rollout, from 1, a node was made; 0 for the root.
  function rolloutOf(tree, node) {
    if (!node) return 0;
    const index = tree.growth.findIndex(([, nodes]) => node < nodes);
    return index < 0 ? tree.growth.length : index + 1;
  }

  return { overview, problems, tree, path, rolloutOf };
})();

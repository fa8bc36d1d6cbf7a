"use strict";

// The data of the page: JSON in elements that the browser does not execute, or
// what `from` is given. Trees are packed one by one, and unpacked when they are
// shown.
Report.data = (() => {
  const KEPT = 6; // Number of unpacked trees in the cache.
  const ANSWER = 3;
  const held = new Map();

  let text = async (id) => document.getElementById(id).textContent;

  // Takes the data from a function that returns the promise of a text.
  function from(source) {
    text = source;
  }

  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes])
      .stream()
      .pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  const overview = async () => JSON.parse(await text("overview"));

  // Returns a name as it appears in an address, without lone surrogates.
  async function problems() {
    const rows = await unpack(await text("problems"));
    for (const row of rows) {
      row.id = row.id.toWellFormed();
      row.split = row.split.toWellFormed();
    }
    return rows;
  }

  async function tree(block) {
    if (!held.has(block)) {
      held.set(block, withShape(await unpack(await text(`tree-${block}`))));
      if (held.size > KEPT) held.delete(held.keys().next().value);
    }
    return held.get(block);
  }

  // Adds derived columns. Parents come before their children.
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

  // Returns what answers of a tree are judged by, a name and a text; null where
  // nothing judges them, as on the page that asks.
  function judgedBy(tree) {
    if (tree.tests) return ["Judged by", "tests"];
    return tree.gold === null ? null : ["Given answer", tree.gold];
  }

  // Returns the rollout, from 1, in which a node was added; 0 for the root.
  function rolloutOf(tree, node) {
    if (!node) return 0;
    const index = tree.growth.findIndex(([, nodes]) => node < nodes);
    return index < 0 ? tree.growth.length : index + 1;
  }

  // Returns the tree with the visits and Q that it had after so many rollouts,
  // by paper Eq. 2 for each rollout. An older tree does not record where its
  // rollouts ended; it is returned unchanged.
  function after(tree, rollout) {
    const { growth } = tree;
    if (rollout >= growth.length || growth.every(([, , end]) => end < 0)) {
      return tree;
    }
    return backedUp(tree, rollout, rollout ? growth[rollout - 1][1] : 1);
  }

  // Returns a tree with what its first rollouts made of the nodes below
  // `limit`.
  function backedUp(tree, rollout, limit) {
    const { growth, parent, kind, ppm } = tree;
    const visits = [...tree.own_visits], sums = [...tree.own_sum];
    const tried = parent.map((_, node) => Number(node === 0));
    for (const [, , end] of growth.slice(0, rollout)) {
      for (let at = end; at >= 0; at = parent[at]) {
        visits[at] += 1;
        sums[at] += tree.q[end];
        tried[at] = 1;
      }
    }
    for (let node = 1; node < limit; node++) tried[parent[node]] = 1;
    // An answer backs up the same value in every rollout that ends there.
    const q = parent.map((_, node) => (kind[node] === ANSWER ? tree.q[node] :
      visits[node] ? sums[node] / visits[node] : ppm[node] ?? 0));
    return { ...tree, visits, q, tried };
  }

  return { from, overview, problems, tree, withShape, path, judgedBy,
    rolloutOf, after, backedUp };
})();

"use strict";

// Replays the search, one rollout at a time: later nodes are faded, nodes of
// the last rollout are ringed, and visits and Q are those of that time.
Report.replay = (() => {
  const { el, number, plural, say } = Report.dom;
  const PAUSE = 900; // Milliseconds for each rollout.

  // Returns {element, apply, stop}. `show(rollout, limit, from)` shows the tree
  // after a rollout, fades the nodes from `limit` on, and rings those from
  // `from` to `limit`.
  function make(tree, start, show) {
    const last = tree.growth.length;
    let at = Math.min(Math.max(start, 0), last), timer = null;
    const told = el("output", { for: "rollout" });
    const slider = el("input", { type: "range", id: "rollout", min: 0,
      max: last, value: at, "aria-label": "Rollout",
      oninput: () => go(Number(slider.value)) });
    const play = el("button", { type: "button", class: "play",
      onclick: () => (timer ? stop() : run()) });

    function nodes(rollout) {
      return rollout ? tree.growth[rollout - 1][1] : 1;
    }

    function apply() {
      const [tokens] = at ? tree.growth[at - 1] : [0];
      const words = at === last ? `all ${plural(last, "rollout")}` :
        at ? `rollout ${at} of ${last}` : "before the first rollout";
      told.textContent = `${words}: ${plural(nodes(at), "node")}, ` +
        `${number(tokens)} tokens`;
      slider.value = at;
      slider.setAttribute("aria-valuetext", told.textContent);
      // The whole tree is not a step of the replay: no node is new.
      show(at, nodes(at),
        at && (at < last || timer) ? nodes(at - 1) : nodes(at));
    }

    function go(rollout) {
      at = Math.min(Math.max(rollout, 0), last);
      apply();
    }

    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶ Replay";
    }

    function run() {
      if (at === last) at = 0;
      timer = setInterval(() => {
        if (at >= last) {
          stop();
          say("The replay has ended");
        } else {
          go(at + 1);
        }
      }, PAUSE);
      play.textContent = "❚❚ Pause";
      apply();
    }

    const step = (text, label, by) => el("button", { type: "button",
      "aria-label": label, onclick: () => { stop(); go(at + by); } }, text);
    stop();
    const element = el("div", { class: "replay", role: "group",
      "aria-label": "Replay of the search" }, play,
    step("‹", "One rollout back", -1), slider,
    step("›", "One rollout on", 1), told);
    return { element, apply, stop, rollout: () => at, last };
  }

  return { make };
})();

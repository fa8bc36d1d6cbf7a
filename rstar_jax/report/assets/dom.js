"use strict";

// Creates elements and formats numbers. Data become text nodes, never HTML: the
// page parses no string as markup.
Report.dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") {
        node.addEventListener(name.slice(2), value);
      } else {
        node.setAttribute(name, value === true ? "" : String(value));
      }
    }
    const shown = children
      .flat(Infinity)
      .filter((each) => each !== null && each !== undefined && each !== false);
    node.append(...shown.map((e) => (e instanceof Node ? e : String(e))));
    return node;
  }

  // el("p", {class: "note", onclick: f}, "text", other) makes an element.
  const el = (tag, attributes, ...children) =>
    fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    fill(document.createElementNS(SVG, tag), attributes, children);

  const known = (value) => value !== null && value !== undefined;
  const number = (value) =>
    known(value) ? Math.round(value).toLocaleString("en") : "–";
  const percent = (value, digits = 1) =>
    known(value) ? `${(100 * value).toFixed(digits)}%` : "–";
  const plural = (count, word) =>
    `${number(count)} ${word}${count === 1 ? "" : "s"}`;

  // Formats a value in [-1, 1] with its sign and a typographic minus.
  function signed(value, digits = 2) {
    if (!known(value)) return "–";
    const text = Math.abs(value).toFixed(digits);
    if (Number(text) === 0) return text;
    return (value < 0 ? "−" : "+") + text;
  }

  function duration(seconds) {
    if (!known(seconds)) return "–";
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
    return `${(seconds / 86400).toFixed(1)} days`;
  }

  function clip(text, length) {
    const points = Array.from(text);
    if (points.length <= length) return text;
    return `${points.slice(0, length - 1).join("")}…`;
  }

  // Announces a change to screen readers.
  function say(text) {
    document.getElementById("said").textContent = text;
  }

  return {
    el, svg, number, percent, plural, signed, duration, clip, say, known,
  };
})();

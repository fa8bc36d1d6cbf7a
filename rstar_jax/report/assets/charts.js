"use strict";

// Charts as inline SVG. Series differ in marker and dash as well as in colour.
Report.charts = (() => {
  const { el, svg } = Report.dom;
  const SHAPES = 5;

  // Returns the outline of a marker around (x, y).
  function marker(series, x, y, r) {
    const paths = [
      `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
      `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
      `M${x} ${y - 1.2 * r}l${1.2 * r} ${2.2 * r}h${-2.4 * r}z`,
      `M${x} ${y - 1.4 * r}l${1.4 * r} ${1.4 * r}l${-1.4 * r} ${1.4 * r}` +
        `l${-1.4 * r} ${-1.4 * r}z`,
      `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`,
    ];
    return svg("path", { d: paths[series % SHAPES], class: "marker" });
  }

  // Returns round tick values for an axis from low to high.
  function ticks(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
    const found = [];
    // By whole multiples, so that 0 is 0.
    for (let at = Math.ceil(low / step - 1e-9);
      at * step <= high + step * 1e-6; at++) {
      found.push(Number((at * step).toPrecision(12)));
    }
    return found;
  }

  // Draws a line chart. A point is {x, y, low, high, title}; low and high give
  // an error bar. Options: label (of the chart), format (of y), xs (ticks of
  // x), xName, floor and ceiling (of y), height, width, markers, and dodge,
  // which shifts series apart.
  function lines(series, options) {
    // As wide as its container, so that texts stay legible on a phone.
    const wide = Math.min(920, Math.max(340, innerWidth - 64));
    const { width = wide, height = Math.min(330, 200 + width / 7),
      format = String } = options;
    const box = { left: 44, right: 14, top: 10, bottom: 34 };
    const points = series.flatMap((each) => each.points);
    const bounds = points.flatMap((p) => [p.low ?? p.y, p.high ?? p.y]);
    const low = options.floor ?? Math.min(...bounds);
    const high = options.ceiling ?? Math.max(...bounds, low + 1e-9);
    const xs = points.map((p) => p.x);
    const [first, last] = [Math.min(...xs), Math.max(...xs)];
    const pad = options.dodge ? 0.35 : 0;
    const x = (value) => box.left + (width - box.left - box.right) *
      (last > first ? (value - first + pad) / (last - first + 2 * pad) : 0.5);
    const y = (value) => height - box.bottom - (height - box.top - box.bottom) *
      (value - low) / (high - low || 1);
    const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
      class: "chart", "aria-label": options.label });
    for (const at of ticks(low, high, 4)) {
      drawn.append(
        svg("line", { class: "grid", x1: box.left, x2: width - box.right,
          y1: y(at), y2: y(at) }),
        svg("text", { class: "tick end", x: box.left - 7, y: y(at) + 4 },
          format(at)));
    }
    for (const at of options.xs || ticks(first, last, 5)) {
      drawn.append(svg("text", { class: "tick middle", x: x(at),
        y: height - box.bottom + 17 }, String(at)));
    }
    if (options.xName) {
      drawn.append(svg("text", { class: "tick middle",
        x: (box.left + width - box.right) / 2, y: height - 3 }, options.xName));
    }
    series.forEach((each, index) => {
      // Shifted apart, so that intervals do not hide each other.
      const aside = options.dodge ? 9 * (index - (series.length - 1) / 2) : 0;
      drawn.append(line(each, index, (v) => x(v) + aside, y, options.markers));
    });
    return drawn;
  }

  function line(series, index, x, y, markers = true) {
    const at = (p) => `${x(p.x).toFixed(1)} ${y(p.y).toFixed(1)}`;
    const path = `M${series.points.map(at).join("L")}`;
    const shown = series.look ?? index;
    const group = svg("g", { class: `series s${shown % SHAPES}` },
      svg("path", { d: path, class: "line" }));
    for (const p of markers ? series.points : []) {
      const mark = svg("g", {}, svg("title", {}, p.title));
      if (p.low !== undefined && p.low !== null) {
        mark.append(svg("line", { class: "bar", x1: x(p.x), x2: x(p.x),
          y1: y(p.low), y2: y(p.high) }));
      }
      mark.append(marker(shown, x(p.x), y(p.y), 4));
      group.append(mark);
    }
    return group;
  }

  // Draws the legend: the name of each series beside its line and marker.
  function legend(names, looks = names.map((_, i) => i), markers = true) {
    const key = (look) => svg("svg", { viewBox: "0 0 36 14", class: "key",
      "aria-hidden": "true" }, svg("g", { class: `series s${look % SHAPES}` },
      svg("path", { class: "line", d: "M1 7H35" }),
      markers ? marker(look, 18, 7, 4) : ""));
    return el("ul", { class: "legend" }, names.map((name, index) =>
      el("li", {}, key(looks[index]), name)));
  }

  // Draws a stacked bar of parts [{value, name, look}], as shares of `whole`.
  function bar(parts, whole, label) {
    const drawn = svg("svg", { viewBox: "0 0 100 6", class: "stack",
      preserveAspectRatio: "none", role: "img", "aria-label": label });
    let at = 0;
    for (const part of parts) {
      const width = whole ? (100 * part.value) / whole : 0;
      drawn.append(svg("rect", { class: `part p${part.look}`, x: at, y: 0,
        width: Math.max(width, 0), height: 6 }, svg("title", {}, part.name)));
      at += width;
    }
    return drawn;
  }

  return { lines, legend, bar, ticks };
})();

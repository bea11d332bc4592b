// Pieces of the page, made from a video or from one of its trajectories.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const plural = (count, noun) => `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
const percentOf = (part, whole) => `${(100 * part) / whole}%`;

function percent(share) {
  const value = 100 * share;
  return `${value.toFixed(value >= 10 ? 0 : value >= 1 ? 1 : 2)}%`;
}

function span({ first, last }) {
  return first === last ? `frame ${first + 1}` : `frames ${first + 1}–${last + 1}`;
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  const { style = {}, ...rest } = attributes;
  Object.entries(rest).forEach(([name, value]) => node.setAttribute(name, value));
  Object.entries(style).forEach(([name, value]) => node.style.setProperty(name, value));
  node.append(...children);
  return node;
}

const swatch = (colour) => element("i", { style: { background: colour } });

// ---- the timeline

function makeTicks({ count, times, keyFrames }) {
  const every = Math.max(1, Math.ceil(count / 6));
  return times.flatMap((time, t) => {
    const style = { left: percentOf(t + 0.5, count) };
    const tick = element("i", { class: keyFrames[t] ? "tick key" : "tick", style });
    if (t % every) return [tick];
    return [tick, element("span", { class: "when", style }, `${time.toFixed(1)}${t ? "" : " s"}`)];
  });
}

function makeRow(one, { count }) {
  const track = element("span", { class: "track" });
  if (one.runs.length > 1) {
    const width = percentOf(one.last - one.first + 1, count);
    track.append(element("b", { style: { left: percentOf(one.first, count), width } }));
  }
  for (const [first, last] of one.runs) {
    const width = `calc(${percentOf(last - first + 1, count)} - 1px)`;
    const style = { left: percentOf(first, count), width, background: one.colour };
    track.append(element("i", { style }));
  }
  return element(
    "div",
    {
      class: "row",
      role: "option",
      id: `row-${one.id}`,
      "data-id": one.id,
      "aria-selected": "false",
      "aria-label": `Trajectory ${one.id}, ${span(one)}, ${percent(one.mean)} of the frame`,
    },
    element("span", { class: "id" }, `${one.id}`),
    track,
    element("span", { class: "area" }, percent(one.mean)),
  );
}

// ---- the side

function describeSource(video) {
  const [width, height] = video.size;
  const facts = [
    width ? `${width} × ${height}` : "",
    video.duration ? `${video.duration.toFixed(1)} s` : "",
    plural(video.count, "frame"),
    video.madeBy,
  ];
  return facts.filter(Boolean).join("  ·  ");
}

function makeRatio({ trajectories: { length: n }, tubelets }) {
  if (!n) return ["No tokens"];
  const fewer = n <= tubelets;
  const ratio = fewer ? tubelets / n : n / tubelets;
  return [`${ratio.toFixed(1)}×`, element("small", {}, `${fewer ? "fewer" : "more"} tokens`)];
}

function makeComparison({ trajectories: { length: n }, tubelets, count }) {
  const bar = (kind, tokens, name) =>
    element(
      "div",
      { class: kind },
      element("span", {}, element("b", {}, tokens.toLocaleString("en-US")), ` ${name}`),
      element("i", { style: { width: percentOf(tokens, Math.max(n, tubelets)) } }),
    );
  return [
    bar("ours", n, `trajectory token${n === 1 ? "" : "s"}`),
    bar("theirs", tubelets, "tubelets of 2×16×16"),
    element("p", { class: "note" }, `Tubelets as ViT3D cuts the same ${plural(count, "frame")} at 224 × 224.`),
  ];
}

function makeCaptions({ captions }) {
  return [
    element("h3", {}, captions.length > 1 ? "Captions" : "Caption"),
    element("ul", {}, ...captions.map((caption) => element("li", {}, caption))),
  ];
}

// ---- one trajectory

function boxText({ boxes, count }, { id }, frame) {
  const at = ((id - 1) * count + frame) * 4;
  const [x0, y0, x1, y1] = boxes.subarray(at, at + 4);
  return `${x0}, ${y0} – ${x1}, ${y1}`;
}

// Area over time; frames without the trajectory stay empty.
function makeAreaChart({ count }, { areas, runs, colour }, frame) {
  const top = Math.max(...areas);
  const x = (t) => (100 * t) / count;
  const y = (t) => 42 - (38 * areas[t]) / top;
  const shapes = runs.map(([first, last]) => {
    const frames = Array.from({ length: last - first + 1 }, (_, k) => first + k);
    const inner = frames.map((t) => `${x(t + 0.5)},${y(t)}`).join(" ");
    const [left, right] = [x(first), x(last + 1)];
    return `<polygon points="${left},43 ${left},${y(first)} ${inner} ${right},${y(last)} ${right},43"/>`;
  });
  const line = (path, ink) => `<path d="${path}" stroke="var(--${ink})" vector-effect="non-scaling-stroke"/>`;
  const holder = element("div");
  holder.innerHTML =
    '<svg viewBox="0 0 100 44" preserveAspectRatio="none" aria-hidden="true">' +
    `<g fill="${colour}" stroke="none">${shapes.join("")}</g>` +
    line("M0 43H100", "rule") +
    line(`M${x(frame + 0.5)} 0V43`, "ink") +
    "</svg>";
  return holder.firstChild;
}

function makeTokenCard(video, one, frame, isPinned) {
  if (!one) {
    const hint = "Point at a pixel or a bar to follow one token; click to pin it.";
    return [element("h3", {}, "Trajectory"), element("p", { class: "note" }, hint)];
  }
  const area = one.areas[frame];
  const gaps = one.last - one.first + 1 - one.seen;
  const facts = [
    ["Seen", span(one)],
    ["Gaps", gaps ? plural(gaps, "frame") : "none"],
    ["Area, mean", percent(one.mean)],
    ["Area, this frame", area ? percent(area) : "not seen"],
    ["Box, pixels", area ? boxText(video, one, frame) : "–"],
  ];
  return [
    element("h3", {}, swatch(one.colour), `Trajectory ${one.id}`, element("small", {}, isPinned ? "pinned" : "")),
    element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    makeAreaChart(video, one, frame),
  ];
}

function makeTooltip(one, frame) {
  if (!one) return [element("span", {}, "No trajectory")];
  const area = one.areas[frame];
  const now = area ? `${percent(area)} of this frame` : "not in this frame";
  return [
    element("b", {}, swatch(one.colour), `Trajectory ${one.id}`),
    element("br"),
    element("span", {}, `${span(one)} · ${now}`),
  ];
}

// The explorer: one on every section of the document that has none yet.

function mount(host) {
  host.dataset.mounted = "";
  const shadow = host.attachShadow({ mode: "open" });
  shadow.append(host.querySelector("template").content.cloneNode(true));
  const scripts = [...host.querySelectorAll('script[type="application/json"]')];
  const $ = (selector) => shadow.querySelector(selector);
  const [app, rows, scrubber, tooltip] = [".app", ".rows", ".scrubber", ".tooltip"].map($);
  const panes = ["video", "tokens"].map((name) => ({
    canvas: $(`.pane.${name} canvas`),
    buffer: document.createElement("canvas"),
    isVideoPane: name === "video",
    ratio: 1,
  }));
  const state = { index: -1, video: null, frame: 0, hovered: 0, pinned: 0, opacity: 0.7, lines: true };
  let order = [];
  let rowOf = new Map();
  let timer = 0;
  let queued = 0;
  let engaged = false;

  const focus = () => state.hovered || state.pinned;
  const trajectory = (id) => state.video.trajectories[id - 1];

  // ---- drawing

  function redraw() {
    if (queued) return;
    queued = requestAnimationFrame(() => {
      queued = 0;
      if (!state.video) return;
      panes.forEach((pane) => drawPane(pane, state.video, state.frame, focus(), state));
    });
  }

  function fitCanvases() {
    for (const pane of panes) {
      const { width, height } = pane.canvas.getBoundingClientRect();
      pane.ratio = Math.min(window.devicePixelRatio || 1, 2);
      pane.canvas.width = Math.max(1, Math.round(width * pane.ratio));
      pane.canvas.height = Math.max(1, Math.round(height * pane.ratio));
    }
    app.style.setProperty("--scrollbar", `${rows.offsetWidth - rows.clientWidth}px`);
    redraw();
  }

  // ---- time

  function seek(frame) {
    const { count, times, keyFrames } = state.video;
    state.frame = clamp(frame, 0, count - 1);
    scrubber.value = state.frame;
    app.style.setProperty("--frame", state.frame);
    const [name, time] = [`Frame ${state.frame + 1} of ${count}`, `${times[state.frame].toFixed(2)} s`];
    $(".counter").replaceChildren(name, element("small", {}, time));
    scrubber.setAttribute("aria-valuetext", `${name}, ${time}${keyFrames[state.frame] ? ", key frame" : ""}`);
    showToken();
    redraw();
  }

  function play(playing) {
    clearInterval(timer);
    timer = 0;
    if (playing && state.video.count > 1) {
      const { count, times } = state.video;
      const pause = clamp((1000 * (times.at(-1) - times[0])) / (count - 1), 70, 450);
      timer = setInterval(() => seek((state.frame + 1) % count), pause);
    }
    $(".play").classList.toggle("playing", timer !== 0);
    $(".play").setAttribute("aria-label", timer ? "Pause" : "Play");
  }

  // ---- highlighting

  function showToken() {
    const id = focus();
    $(".token").replaceChildren(
      ...makeTokenCard(state.video, id && trajectory(id), state.frame, id === state.pinned),
    );
  }

  function highlight({ hovered = state.hovered, pinned = state.pinned }) {
    if (hovered === state.hovered && pinned === state.pinned) return;
    rowOf.get(focus())?.classList.remove("focus");
    const before = rowOf.get(state.pinned);
    before?.classList.remove("pinned");
    before?.setAttribute("aria-selected", "false");
    Object.assign(state, { hovered, pinned });
    rowOf.get(focus())?.classList.add("focus");
    const after = rowOf.get(pinned);
    after?.classList.add("pinned");
    after?.setAttribute("aria-selected", "true");
    rows.setAttribute("aria-activedescendant", after?.id ?? "");
    app.classList.toggle("has-focus", focus() > 0);
    showToken();
    redraw();
  }

  // Scrolls the timeline, by as little as it takes, until the bar is in sight.
  function reveal(id) {
    const row = rowOf.get(id);
    if (!row) return;
    const above = row.offsetTop - 24;
    const below = row.offsetTop + row.offsetHeight + 24 - rows.clientHeight;
    rows.scrollTop = clamp(rows.scrollTop, below, Math.max(above, below));
  }

  function toggle(id) {
    if (id === state.pinned) highlight({ hovered: 0, pinned: 0 });
    else highlight({ pinned: id });
  }

  function release() {
    tooltip.hidden = true;
    highlight({ hovered: 0, pinned: 0 });
  }

  function leave() {
    tooltip.hidden = true;
    highlight({ hovered: 0 });
  }

  function showTooltip(event, id) {
    tooltip.hidden = false;
    tooltip.dataset.id = id;
    tooltip.replaceChildren(...makeTooltip(id && trajectory(id), state.frame));
    const box = app.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const flip = y + 24 + tooltip.offsetHeight > box.height;
    tooltip.style.left = `${clamp(x + 14, 8, box.width - tooltip.offsetWidth - 8)}px`;
    tooltip.style.top = `${flip ? y - tooltip.offsetHeight - 14 : y + 18}px`;
  }

  function labelUnder(event) {
    const { width, height, labels } = state.video;
    const box = event.currentTarget.getBoundingClientRect();
    const cell = (at, size, cells) => clamp(Math.floor((at / size) * cells), 0, cells - 1);
    const x = cell(event.clientX - box.left, box.width, width);
    const y = cell(event.clientY - box.top, box.height, height);
    return labels[(state.frame * height + y) * width + x];
  }

  // ---- one of the videos

  function showTimeline(video) {
    // The thumb's centre must run from the middle of the first frame to that of the last.
    scrubber.max = video.count - 1;
    scrubber.disabled = $(".play").disabled = video.count < 2;
    scrubber.style.left = `calc(${percentOf(0.5, video.count)} - 8px)`;
    scrubber.style.width = `calc(${percentOf(video.count - 1, video.count)} + 16px)`;
    app.style.setProperty("--frames", video.count);
    $(".ticks").replaceChildren(...makeTicks(video));
    order = [...video.trajectories].sort((a, b) => a.first - b.first || b.mean - a.mean);
    rowOf = new Map(order.map((one) => [one.id, makeRow(one, video)]));
    const empty = element("p", { class: "empty" }, "This video has no trajectories.");
    rows.replaceChildren(...(order.length ? rowOf.values() : [empty]));
    rows.classList.toggle("dense", order.length > 40);
    rows.scrollTop = 0;
  }

  function showFacts(video) {
    $(".name").textContent = video.id;
    $(".source").textContent = describeSource(video);
    $(".ratio").replaceChildren(...makeRatio(video));
    $(".compare").replaceChildren(...makeComparison(video));
    $(".captions").hidden = video.captions.length === 0;
    $(".captions").replaceChildren(...makeCaptions(video));
  }

  function preparePanes(video) {
    const [width, height] = video.shown;
    app.classList.toggle("portrait", height > width);
    app.style.setProperty("--aspect", width / height);
    for (const pane of panes) {
      pane.canvas.style.aspectRatio = `${width} / ${height}`;
      Object.assign(pane.buffer, { width: video.width, height: video.height });
      pane.pixels = new ImageData(video.width, video.height);
    }
  }

  async function open(index) {
    state.index = index;
    play(false);
    $("select").value = index;
    const video = await loadVideo(scripts[index]);
    if (state.index !== index) return;
    release();
    state.video = video;
    preparePanes(video);
    showFacts(video);
    showTimeline(video);
    seek(0);
    fitCanvases();
    host.dataset.ready = video.id;
  }

  // ---- input

  for (const { canvas } of panes) {
    canvas.addEventListener("pointermove", (event) => {
      if (!state.video) return;
      const id = labelUnder(event);
      if (event.pointerType !== "touch") {
        highlight({ hovered: id });
        reveal(id);
      }
      showTooltip(event, id);
    });
    canvas.addEventListener("pointerleave", leave);
    canvas.addEventListener("click", (event) => {
      if (!state.video) return;
      const id = labelUnder(event);
      if (id) toggle(id);
      else release();
      reveal(state.pinned);
      showTooltip(event, id);
    });
  }

  const idOfRow = (event) => Number(event.target.closest(".row")?.dataset.id ?? 0);
  rows.addEventListener("pointermove", (event) => {
    const id = idOfRow(event);
    if (event.pointerType !== "touch") highlight({ hovered: id });
    if (id) showTooltip(event, id);
    else tooltip.hidden = true;
  });
  rows.addEventListener("pointerleave", leave);
  rows.addEventListener("click", (event) => {
    const id = idOfRow(event);
    if (!id) return;
    const one = trajectory(id);
    if (id !== state.pinned && !one.areas[state.frame]) seek(one.first);
    toggle(id);
  });

  scrubber.addEventListener("input", () => {
    play(false);
    seek(Number(scrubber.value));
  });
  $(".play").addEventListener("click", () => state.video && play(!timer));
  $(".opacity input").addEventListener("input", (event) => {
    state.opacity = event.target.value / 100;
    redraw();
  });
  $(".lines input").addEventListener("change", (event) => {
    state.lines = event.target.checked;
    redraw();
  });

  function step(by) {
    play(false);
    seek(state.frame + by);
  }

  function walk(by) {
    if (!order.length) return;
    const at = order.findIndex(({ id }) => id === state.pinned);
    const { id } = order[clamp(at + by, 0, order.length - 1)];
    tooltip.hidden = true;
    highlight({ hovered: 0, pinned: id });
    reveal(id);
  }

  const keys = {
    " ": () => play(!timer),
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    ArrowUp: () => walk(-1),
    ArrowDown: () => walk(1),
    Home: () => step(-Infinity),
    End: () => step(Infinity),
    Escape: release,
  };
  const ownKeys = "select, textarea, input:not(.scrubber), [contenteditable]";
  host.addEventListener("pointerenter", () => (engaged = true));
  host.addEventListener("pointerleave", () => (engaged = false));
  document.addEventListener("keydown", (event) => {
    const [target] = event.composedPath();
    const isOurs = host.dataset.keys === "page" || engaged || host.contains(event.target);
    if (!isOurs || !state.video || event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches?.(ownKeys) && event.key !== "Escape") return;
    if (target.matches?.("button") && event.key === " ") return;
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  // ---- start

  const turn = (by) => open((state.index + by + scripts.length) % scripts.length);
  $("select").append(
    ...scripts.map((script, index) => element("option", { value: index }, script.dataset.name)),
  );
  $("select").addEventListener("change", (event) => open(Number(event.target.value)));
  $(".picker").hidden = scripts.length < 2;
  $(".previous").addEventListener("click", () => turn(-1));
  $(".next").addEventListener("click", () => turn(1));
  new ResizeObserver(fitCanvases).observe(app);
  open(0);
}

document.querySelectorAll(".trajectory-explorer:not([data-mounted])").forEach(mount);

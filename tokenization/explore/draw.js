// Panes: a frame, its tint by label, its boundaries.

// The edges between cells of different labels as one path; of trajectory `only`, if given.
function outline(video, frame, only) {
  const { width, height, labels } = video;
  const start = frame * width * height;
  const differ = only
    ? (a, b) => (labels[a] === only) !== (labels[b] === only)
    : (a, b) => labels[a] !== labels[b];
  const path = new Path2D();
  for (let y = 0; y < height; y++) {
    for (let x = 0, from = -1; x <= width; x++) {
      const here = start + y * width + x;
      const edge = y > 0 && x < width && differ(here, here - width);
      if (edge && from < 0) from = x;
      if (!edge && from >= 0) {
        path.moveTo(from, y);
        path.lineTo(x, y);
        from = -1;
      }
    }
  }
  for (let x = 1; x < width; x++) {
    for (let y = 0, from = -1; y <= height; y++) {
      const here = start + y * width + x;
      const edge = y < height && differ(here, here - 1);
      if (edge && from < 0) from = y;
      if (!edge && from >= 0) {
        path.moveTo(x, from);
        path.lineTo(x, y);
        from = -1;
      }
    }
  }
  return path;
}

function frameOutline(video, frame) {
  if (!video.outlines.has(frame)) video.outlines.set(frame, outline(video, frame));
  return video.outlines.get(frame);
}

// A lookup table of little-endian RGBA words, by label.
function tintTable(video, focus, isVideoPane) {
  const alpha = (value) => Math.round(255 * value) << 24;
  const table = new Uint32Array(video.colours.length);
  const dimmed = 0x121010 | alpha(isVideoPane ? 0.62 : 0.72);
  for (let id = 0; id < table.length; id++) {
    const rgb = parseInt(video.colours[id].slice(1), 16);
    const word = (rgb >> 16) | (rgb & 0xff00) | ((rgb & 0xff) << 16) | alpha(1);
    if (isVideoPane) table[id] = focus && id !== focus ? dimmed : 0;
    else if (focus) table[id] = id === focus ? word : dimmed;
    else table[id] = id ? word : 0x121010 | alpha(0.4);
  }
  return table;
}

function drawPane(pane, video, frame, focus, { opacity, lines }) {
  const { canvas, buffer, isVideoPane } = pane;
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "source-over";
  context.globalAlpha = 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(video.images[frame], 0, 0, width, height);
  if (!isVideoPane) {
    context.globalCompositeOperation = "saturation";
    context.fillStyle = "#808080";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-over";
  }
  if (!isVideoPane || focus) {
    const table = tintTable(video, focus, isVideoPane);
    const cells = video.width * video.height;
    const words = new Uint32Array(pane.pixels.data.buffer);
    for (let i = 0, j = frame * cells; i < cells; i++, j++) words[i] = table[video.labels[j]];
    buffer.getContext("2d").putImageData(pane.pixels, 0, 0);
    context.globalAlpha = isVideoPane ? 1 : focus ? Math.max(opacity, 0.35) : opacity;
    context.imageSmoothingEnabled = width < 2 * video.width;
    context.drawImage(buffer, 0, 0, width, height);
    context.imageSmoothingEnabled = true;
    context.globalAlpha = 1;
  }
  const scale = new DOMMatrix([width / video.width, 0, 0, height / video.height, 0, 0]);
  const stroke = (path, colour, thickness) => {
    const scaled = new Path2D();
    scaled.addPath(path, scale);
    context.lineCap = "square";
    context.strokeStyle = colour;
    context.lineWidth = thickness * pane.ratio;
    context.stroke(scaled);
  };
  if (lines && !isVideoPane && !focus) stroke(frameOutline(video, frame), "rgb(14 16 19 / 72%)", 1);
  if (focus && video.trajectories[focus - 1].areas[frame]) {
    const path = outline(video, frame, focus);
    stroke(path, "rgb(14 16 19 / 60%)", 3.5);
    stroke(path, isVideoPane ? video.colours[focus] : "#fff", 1.75);
  }
}

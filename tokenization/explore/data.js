// Videos, from the JSON in the page to arrays and images.

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function unpackLabels(buffer, width) {
  const planes = new Uint8Array(buffer);
  const cells = planes.length / 2;
  const labels = new Uint16Array(cells);
  for (let i = 0; i < cells; i++) {
    labels[i] = planes[i] | (planes[cells + i] << 8);
    if (i >= width) labels[i] ^= labels[i - width];
  }
  return labels;
}

async function loadImage(base64) {
  const image = new Image();
  image.src = `data:image/jpeg;base64,${base64}`;
  await image.decode();
  return image;
}

// Runs of frames in which trajectory `id` is seen: [[first, last], ...].
function runsOf(areas, id, count) {
  const runs = [];
  for (let t = 0; t < count; t++) {
    if (!areas[(id - 1) * count + t]) continue;
    const last = runs.at(-1);
    if (last && last[1] === t - 1) last[1] = t;
    else runs.push([t, t]);
  }
  return runs;
}

async function loadVideo(script) {
  const raw = JSON.parse(script.textContent);
  const count = raw.frames.length;
  const [images, labels, areas, boxes] = await Promise.all([
    Promise.all(raw.frames.map(loadImage)),
    inflate(raw.labels).then((buffer) => unpackLabels(buffer, raw.width)),
    inflate(raw.areas).then((buffer) => new Float32Array(buffer)),
    inflate(raw.boxes).then((buffer) => new Uint16Array(buffer)),
  ]);
  const trajectories = raw.colours.slice(1).map((colour, index) => {
    const id = index + 1;
    const runs = runsOf(areas, id, count);
    const own = areas.subarray(index * count, id * count);
    const seen = runs.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    const mean = own.reduce((sum, area) => sum + area, 0) / seen;
    return { id, colour, runs, areas: own, seen, mean, first: runs[0][0], last: runs.at(-1)[1] };
  });
  return { ...raw, count, images, labels, boxes, trajectories, outlines: new Map() };
}

// Maps of the layers' alignment: a map for each setting that is shown, of one seed; a row a layer, the output on top.
const MOST = 24;
const STOPS = [[13, 20, 62], [49, 46, 129], [105, 45, 140], [163, 52, 123], [213, 76, 93], [244, 121, 66], [252, 180, 64], [252, 247, 170]];
const LABELS = { relative_error: "relative error", angle: "angle, degrees" };

function colour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1), i = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[i].map((part, c) => Math.round(part + (at - i) * (STOPS[i + 1][c] - part)));
}

function maps() {
  at("layers").hidden = !page.maps.length;
  if (!page.maps.length) return;
  const measures = [...new Set(page.maps.map(map => map.measure))];
  const seeds = [...new Set(page.maps.map(map => page.runs[map.run].seed))].sort((a, b) => a - b);
  const measure = measures.includes(state.measure) ? state.measure : measures[0];
  const seed = seeds.includes(state.seed) ? state.seed : seeds[0];
  const found = page.maps.filter(map => map.measure === measure && page.runs[map.run].seed === seed && shown(page.runs[map.run].setting));
  const drawn = found.slice(0, MOST);
  let low = Infinity, high = 0;
  for (const value of drawn.flatMap(map => map.values.flat())) if (value > 0) { low = Math.min(low, value); high = Math.max(high, value) }
  const span = Math.log(high / low) || 1;
  const share = value => value > 0 ? Math.log(value / low) / span : 0;
  const gradient = STOPS.map(stop => `rgb(${stop})`).join(",");
  fill("map-bar",
    measures.map(each => make("button", { class: "pick", "aria-pressed": each === measure,
      onclick: () => { state.measure = each; draw() } }, LABELS[each] ?? each)),
    seeds.length > 1 ? make("select", { "aria-label": "seed", onchange: event => { state.seed = Number(event.target.value); draw() } },
      seeds.map(each => make("option", { value: each, ...(each === seed ? { selected: "" } : {}) }, `seed ${each}`))) : "",
    drawn.length ? [make("span", {}, written(low)), make("i", { class: "scale", style: `background:linear-gradient(90deg,${gradient})` }),
      make("span", {}, `${written(high)}; a cell is the largest value of its rows`)] : "",
    found.length > MOST ? make("span", {}, `the first ${MOST} of ${found.length}: switch others off`) : "");
  fill("maps", drawn.length ? drawn.map(map => figure(map, share)) : make("p", { class: "empty" }, "Nothing was measured for these settings and this seed."));
}

function figure(map, share) {
  const run = page.runs[map.run], [rows, columns] = [map.layers.length, map.steps.length];
  const canvas = make("canvas", { width: columns, height: rows, role: "img", "aria-label": `${label(run)}: ${map.measure} by layer and step` });
  const image = new ImageData(columns, rows);
  map.values.forEach((line, layer) => line.forEach((value, column) => {
    if (value !== null) image.data.set([...colour(share(value)), 255], 4 * ((rows - 1 - layer) * columns + column));
  }));
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.style.minHeight = `${Math.min(Math.max(5.5, rows * 0.9), 24)}rem`;
  canvas.addEventListener("mousemove", event => {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(Math.floor((event.clientX - box.left) / box.width * columns), columns - 1);
    const layer = rows - 1 - Math.min(Math.floor((event.clientY - box.top) / box.height * rows), rows - 1);
    tell(event, `${label(run)}\n${map.layers[layer]}, step ${map.steps[column]}: ${written(map.values[layer][column])}`);
  });
  canvas.addEventListener("mouseleave", event => tell(event, ""));
  const every = Math.ceil(rows / 24);
  const words = [...map.layers].reverse().map((layer, i) => make("span", {}, i % every ? "" : layer));
  return make("figure", {}, make("figcaption", {}, make("span", {}, swatch(run.setting), names[run.setting])),
    make("div", { class: "map" }, make("div", { class: "rows" }, words), canvas,
      make("div", { class: "columns" }, make("span", {}, `step ${map.steps[0]}`), make("span", {}, map.steps[columns - 1]))));
}

// Curves: a chart for each key that is picked, a line for each run of the settings that are shown.
const WIDTH = 400, HEIGHT = 230, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 32;
const MANY = 30;  // lines, beyond which they are thin and have no bands
const FIRST = ["train/loss", "test/loss", "test/accuracy", "alignment/relative_error", "relax/steps", "relax/residual"];
const positive = key => !/accuracy|steps/.test(key);

function curves() {
  const keys = page.curves.map(curve => curve.key);
  state.hidden ??= keys.filter(key => !FIRST.includes(key));
  at("curves").hidden = !keys.length;
  const thin = page.curves.some(({ lines }) => lines.some(line => line.highs));
  at("curves").querySelector("p").textContent = "A line is a run." + (thin
    ? " Where a run has more rows than fit, a point is the median of a stretch of rows, in a band from their lowest to their highest; " +
    `of more than ${MANY} runs, the line alone is drawn.` : "");
  fill("keys", keys.map(key => make("button", { class: "pick", "aria-pressed": !state.hidden.includes(key),
    onclick: () => { toggle(state.hidden, key); draw() } }, key)));
  fill("charts", page.curves.filter(({ key }) => !state.hidden.includes(key)).map(({ key, lines }) => {
    const visible = lines.filter(line => shown(page.runs[line.run].setting)).map(({ run, steps, values, lows, highs }) => ({
      name: label(page.runs[run]), colour: colours[page.runs[run].setting], xs: steps, ys: values, lows, highs }));
    return chart(key, visible, { x: "step", log: positive(key) && !state.linear.includes(key) });
  }));
  at("strengths").hidden = !page.strengths.length;
  const strengths = page.strengths.map((each, i) => ({ name: each.name, colour: TEN[i % TEN.length], xs: each.strengths,
    ys: each.errors, spreads: each.spreads, points: true }));
  const key = strengths.map(({ name, colour }) => make("span", {}, make("span", { class: "swatch", style: `color:${colour}` }), name));
  fill("strength-key", key, make("span", {}, "mean and standard error over seeds"));
  if (page.strengths.length) fill("strength-chart", chart("relative error of the gradient", strengths, { x: "nudge strength", log: true, logX: true }));
}

function chart(title, lines, { x, log, logX = false }) {
  const switches = positive(title) && !logX;
  const caption = make("figcaption", {}, title, switches ? make("button", { "aria-pressed": log,
    onclick: () => { toggle(state.linear, title); draw() } }, "log") : "");
  const kept = lines.map(line => {
    const index = line.ys.map((_, i) => i).filter(i => line.ys[i] !== null && (!log || line.ys[i] > 0) && (!logX || line.xs[i] > 0));
    const pick = list => list && index.map(i => list[i]);
    return { ...line, xs: pick(line.xs), ys: pick(line.ys), spreads: pick(line.spreads), lows: pick(line.lows), highs: pick(line.highs) };
  }).filter(line => line.xs.length);
  if (!kept.length) return make("figure", {}, caption, make("p", { class: "empty" }, "Nothing to show."));
  const across = scale(kept.flatMap(line => line.xs), logX, LEFT, WIDTH - RIGHT);
  const many = kept.length > MANY;
  const ends = kept.flatMap(line => many ? line.ys : [line.ys, line.lows ?? [], line.highs ?? []].flat()).filter(value => !log || value > 0);
  const up = scale(ends, log, HEIGHT - BOTTOM, TOP);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  for (const tick of up.ticks) svg.append(
    make("line", { class: "grid-line", x1: LEFT, x2: WIDTH - RIGHT, y1: up.place(tick), y2: up.place(tick) }),
    make("text", { x: LEFT - 6, y: up.place(tick) + 4, "text-anchor": "end" }, written(tick)));
  for (const tick of across.ticks) svg.append(
    make("text", { x: across.place(tick), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, written(tick)));
  svg.append(make("text", { x: WIDTH - RIGHT, y: HEIGHT - 3, "text-anchor": "end" }, x));
  for (const line of many ? [] : kept.filter(line => line.highs)) {  // from the lowest to the highest of the rows behind a point
    const low = line.lows.map((value, i) => log && value <= 0 ? line.ys[i] : value);
    const there = line.xs.map((x, i) => `${i ? "L" : "M"}${across.place(x).toFixed(1)} ${up.place(line.highs[i]).toFixed(1)}`);
    const back = line.xs.map((x, i) => `L${across.place(x).toFixed(1)} ${up.place(low[i]).toFixed(1)}`).reverse();
    svg.append(make("path", { class: "band", d: there.join("") + back.join("") + "Z", fill: line.colour, opacity: 0.13 }));
  }
  for (const line of kept) {
    line.px = line.xs.map(across.place);
    line.py = line.ys.map(up.place);
    const path = line.px.map((p, i) => `${i ? "L" : "M"}${p.toFixed(1)} ${line.py[i].toFixed(1)}`).join("");
    line.element = make("path", { class: many ? "curve thin" : "curve", d: path, stroke: line.colour });
    svg.append(line.element);
    if (line.points || line.px.length < 16) svg.append(...line.px.map((p, i) =>
      make("circle", { class: "point", cx: p, cy: line.py[i], r: line.points || line.px.length < 2 ? 3.5 : 2, fill: line.colour })));
    line.spreads?.forEach((error, i) => error > 0 && error < line.ys[i] && svg.append(make("line", { stroke: line.colour,
      x1: line.px[i], x2: line.px[i], y1: up.place(line.ys[i] - error), y2: up.place(line.ys[i] + error) })));
  }
  svg.addEventListener("mousemove", event => near(event, svg, kept, x));
  svg.addEventListener("mouseleave", event => { near(null, svg, kept, x); tell(event, "") });
  return make("figure", {}, caption, svg);
}

// The line nearest to the pointer stands out, and says what it is there.
function near(event, svg, lines, x) {
  let best = null, least = 30 ** 2;
  if (event) {
    const box = svg.getBoundingClientRect();
    const [mx, my] = [(event.clientX - box.left) * WIDTH / box.width, (event.clientY - box.top) * HEIGHT / box.height];
    for (const line of lines) line.px.forEach((p, i) => {
      const distance = (p - mx) ** 2 + (line.py[i] - my) ** 2;
      if (distance < least) [best, least] = [[line, i], distance];
    });
  }
  svg.classList.toggle("chosen", best !== null);
  for (const line of lines) line.element.classList.toggle("near", line === best?.[0]);
  if (event) tell(event, best ? `${best[0].name}\n${x} ${written(best[0].xs[best[1]])}: ${written(best[0].ys[best[1]])}` : "");
}

// From values to places between two ends, and the round values to label.
function scale(values, log, from, to) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value) }
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const turn = log ? Math.log10 : value => value;
  const [a, b] = [turn(low), turn(high)];
  const margin = 0.03 * (b - a);
  const place = value => from + (to - from) * (turn(value) - a + margin) / (b - a + 2 * margin);
  return { place, ticks: log ? decades(low, high) : rounds(low, high) };
}

function rounds(low, high) {
  const raw = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find(factor => unit * factor >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(Number((i * step).toPrecision(6)));
  return ticks;
}

function decades(low, high) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  if (last - first < 1) {
    const fine = [];
    for (let power = Math.floor(Math.log10(low)); power <= last + 1; power++) for (const factor of [1, 2, 5]) fine.push(Number(`${factor}e${power}`));
    const inside = fine.filter(value => value >= low && value <= high);
    return inside.length > 1 ? inside : rounds(low, high);
  }
  const every = Math.ceil((last - first + 1) / 6), ticks = [];
  for (let power = first; power <= last; power += every) ticks.push(Number(`1e${power}`));
  return ticks;
}

// Tables that sort: a column has a name, the value to sort a row by, and what the cell shows of it.
function table(id, columns, rows, { rowClass = () => "", sort = null } = {}) {
  const order = state.sort[id] ?? sort;
  const sorted = [...rows];
  if (order) {
    const { value } = columns[order.column] ?? columns[0];
    sorted.sort((a, b) => order.sign * compare(value(a), value(b), order.sign));
  }
  const head = columns.map(({ name, kind }, i) => {
    const now = order?.column === i ? (order.sign > 0 ? "ascending" : "descending") : null;
    const act = () => {
      state.sort[id] = { column: i, sign: now === "ascending" ? -1 : 1 };
      draw();
    };
    return make("th", { class: kind, tabindex: 0, "aria-sort": now, onclick: act, onkeydown: e => e.key === "Enter" && act() }, name);
  });
  const body = sorted.map(row => make("tr", { class: rowClass(row) },
    columns.map(({ value, cell, kind }) => make("td", { class: typeof kind === "function" ? kind(row) : kind },
      cell ? cell(row) : String(value(row) ?? "–")))));
  fill(id, make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, body)));
}

// Numbers by size and words by their letters; what is absent comes last, whichever way.
function compare(a, b, sign) {
  if (a === null || b === null) return a === b ? 0 : (a === null ? sign : -sign);
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? String(a).localeCompare(String(b), "en", { numeric: true }) : x - y;
}

const swatch = setting => make("span", { class: "swatch", style: `color:${colours[setting]}` });

function summary() {
  const tabs = [["settings", "over seeds"], ["runs", "each run"]];
  fill("tabs", tabs.map(([tab, words]) => make("button", {
    class: "pick", "aria-pressed": state.tab === tab, onclick: () => { state.tab = tab; draw() } }, words)),
    make("span", {}, state.tab === "settings" ? "mean ± standard error of the mean" : "as summary.json has it"));
  const keys = page.keys.map((name, i) => ({
    name, kind: "text", value: row => row.values[i],
    cell: row => [i ? "" : swatch(row.setting), row.values[i] ?? "default"].filter(Boolean) }));
  const settings = page.settings.map((each, setting) => ({ ...each, setting }));
  const off = { rowClass: row => shown(row.setting) ? "" : "off" };
  if (state.tab === "settings") {
    const spread = text => text.includes(" ± ")
      ? [text.split(" ± ")[0], make("span", { class: "spread" }, " ± " + text.split(" ± ")[1])] : [text];
    const measures = page.measures.map((name, i) => ({ name, value: row => row.means[i][0], cell: row => spread(row.means[i][1]) }));
    table("summary-table", [...keys, { name: "runs", value: row => row.runs }, ...measures], settings, off);
    return;
  }
  const runs = page.runs.map(run => ({ ...run, values: page.settings[run.setting].values, numbers: run.values }));
  const state_of = run => run.progress === null ? "finished" : make("progress", { value: run.progress, title: `${Math.round(100 * run.progress)}%` });
  const measures = page.measures.map((name, i) => ({ name, value: row => row.numbers[i], cell: row => written(row.numbers[i]) }));
  table("summary-table", [...keys, { name: "seed", value: row => row.seed },
    { name: "state", kind: "text", value: row => row.progress ?? 2, cell: state_of }, ...measures,
    { name: "folder", kind: "text", value: row => row.name }], runs, off);
}

function otherTables() {
  const plain = (names, kinds = []) => names.map((name, i) => ({ name, kind: kinds[i], value: row => row[i] }));
  const paired = page.differences;
  at("differences").hidden = !paired;
  if (paired) {
    at("differences").querySelector("h2").textContent = `Differences from ${page.baseline}`;
    at("differences").querySelector("p").textContent = paired.rows.length
      ? `Paired by seed: a run minus that of ${page.baseline}, mean ± standard error of the mean.`
      : `None: no run has the seed and the settings of exactly one run of ${page.baseline}.`;
    const leading = paired.columns.indexOf("pairs");
    const columns = paired.columns.map((name, i) => ({
      name, kind: i < leading ? "text" : undefined, value: row => i < leading ? row[i] : Number(row[i].split(" ± ")[0].replace("–", "NaN")), cell: row => row[i] }));
    if (paired.rows.length) table("differences-table", columns, paired.rows);
  }
  at("differing").hidden = !page.runs.length;
  const keys = page.differing.map(({ key, values }) => ({ name: key, kind: "text", value: setting => values[setting] }));
  const setting = { name: "setting", kind: "text", value: setting => names[setting], cell: setting => [swatch(setting), names[setting]] };
  if (keys.length) table("differing-table", [setting, ...keys], names.map((_, i) => i).filter(shown));
  else fill("differing-table", make("p", { class: "empty" }, "None: all runs have one configuration, but for the seed."));
  at("differing").querySelector("summary").textContent = `${page.same.length} keys that all runs share`;
  table("same-table", plain(["key", "value"], ["text", "long"]), page.same);
  for (const [id, columns] of [["amiss", ["run", "why"]], ["studies", ["run", "study"]]]) {
    at(id).hidden = !page[id].length;
    table(`${id}-table`, plain(columns, ["text", "long"]), page[id]);
  }
}

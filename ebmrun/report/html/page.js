// The page: its head, the legend that switches settings on and off, and everything below drawn anew at each change.
const algorithms = [...new Set(page.settings.map(each => each.values[0]))];

function legend() {
  at("legend").hidden = names.length < 2;
  const all = state.off.length === 0;
  fill("legend",
    make("button", { onclick: () => { state.off = all ? [...names] : []; draw() } }, all ? "hide all" : "show all"),
    algorithms.length > 1 && names.length > TEN.length ? [...algorithms.map(algo => {
      const own = names.filter((_, i) => page.settings[i].values[0] === algo), some = own.some(name => !state.off.includes(name));
      return make("button", { "aria-pressed": some, title: "all settings of this algorithm", onclick: () => {
        state.off = state.off.filter(name => !own.includes(name)).concat(some ? own : []);
        draw();
      } }, `all ${algo}`);
    }), make("span", { class: "rule" })] : "",
    names.map((name, i) => make("button", { "aria-pressed": shown(i), title: "click to switch; with shift, to see it alone",
      onclick: event => {
        if (event.shiftKey) state.off = names.filter(other => other !== name);
        else toggle(state.off, name);
        draw();
      } }, swatch(i), name)));
}

function draw() {
  keep();
  legend();
  summary();
  curves();
  maps();
  otherTables();
}

document.title = page.title;
at("title").textContent = page.title;
fill("counts", page.counts, page.watch ? [" · ", make("span", { class: "live" }, `live, every ${page.watch} s`)] : "");
at("summary").hidden = !page.runs.length;
state.off = state.off.filter(name => names.includes(name));
draw();
scrollTo(0, state.scroll);
addEventListener("pagehide", keep);
if (page.watch) setTimeout(() => { keep(); location.reload() }, 1000 * page.watch);

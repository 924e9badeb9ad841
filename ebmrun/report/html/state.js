// What the page shows now: kept over a reload, so that a page that is watched stays as it was left.
const page = JSON.parse(document.getElementById("contents").textContent);
const KEPT = "ebmrun " + location.pathname;
const state = { off: [], hidden: null, linear: [], sort: {}, tab: "settings", measure: null, seed: null, scroll: 0 };
try { Object.assign(state, JSON.parse(sessionStorage.getItem(KEPT))) } catch { /* none kept, or none allowed */ }

function keep() {
  try { sessionStorage.setItem(KEPT, JSON.stringify({ ...state, scroll: scrollY })) } catch { /* it begins anew then */ }
}

function toggle(list, item) {
  const at = list.indexOf(item);
  at < 0 ? list.push(item) : list.splice(at, 1);
}

// An element with attributes, on... listeners and children; a text is never read as HTML.
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "circle", "rect"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat());
  return element;
}

const at = id => document.getElementById(id);
const fill = (id, ...children) => at(id).replaceChildren(...children.flat());

// Settings: their names, colours, and whether they are shown.
const short = key => key.split(".").pop();
const names = page.settings.map(({ values }) =>
  values.map((value, i) => value === null ? null : i ? `${short(page.keys[i])}=${value}` : value).filter(Boolean).join(" "));
const TEN = ["#3565d8", "#e8743b", "#19a979", "#c2428f", "#8a5cd6", "#b8860b", "#13a4b4", "#d64550", "#6b7f99", "#7a9a01"];
const hue = i => (25 + 300 * i / Math.max(names.length - 1, 1)).toFixed(0);
const colours = names.map((_, i) => names.length <= TEN.length ? TEN[i] : `oklch(64% .16 ${hue(i)})`);
const shown = setting => !state.off.includes(names[setting]);
const label = run => `${names[run.setting]}, seed ${run.seed}`;

// Numbers in as few characters as say them.
function written(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(Number.isInteger(value / 10 ** Math.floor(Math.log10(size))) ? 0 : 2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

function tell(event, text) {
  const tip = at("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.min(event.clientX + 14, innerWidth - width - 8) + "px";
  tip.style.top = Math.max(Math.min(event.clientY + 14, innerHeight - height - 8), 8) + "px";
}

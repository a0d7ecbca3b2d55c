const D = JSON.parse(document.getElementById("data").textContent);
const C = D.cells;
const METHODS = D.methods;
const SHORT = 24;
const MISSING = "–";
const state = {
  surrogate: D.defaults.surrogate,
  epsilon: D.defaults.epsilon,
  attack: D.defaults.attack,
  attack50: -1,
  risk: "worst",
  rate: "relative",
  search: "",
  sort: { column: "mean", descending: false },
};
const hiddenLines = new Set();

// ---- small helpers: of an interval whose lower end alone is known the upper one is infinite ----
const byId = (id) => document.getElementById(id);
const range = (n) => Array.from({ length: n }, (_, i) => i);

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const SVG = document.querySelector("#scatter svg").namespaceURI;
function sv(tag, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  if (text !== null) node.textContent = text;
  return node;
}

// a short name stays whole; a longer one may break after the marks registry names are built with
function wrapped(name) {
  if (name.length <= SHORT) return [el("span", { class: "nowrap" }, name)];
  const parts = name.split(/(?<=[_+])/);
  return parts.flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));
}

const known = (value) => value !== null && value !== undefined;
// to the even digit of two as near, as the rest of mergerisk prints numbers
function fixed(value, digits) {
  const scaled = value * 10 ** digits, below = Math.floor(scaled);
  const tie = scaled - below === 0.5 && Number.isInteger(value * 2 ** (digits + 1));
  return (tie ? (below + (below % 2)) / 10 ** digits : value).toFixed(digits);
}
const pct = (rate, digits = 0) => (known(rate) ? fixed(100 * rate, digits) + "%" : MISSING);
const ends = (low, high, digits = 0) =>
  !known(low) ? "" : ` [${fixed(100 * low, digits)}, ${known(high) ? fixed(100 * high, digits) + "]" : "∞)"}`;
const eps = (value) => String(Number(value.toPrecision(3)));
const budget = (value) => eps(value) + "/255";
const signed = (value) => (known(value) ? (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1) : MISSING);
const bin = (value, top) => Math.max(0, Math.min(D.bins - 1, Math.round((value / top) * (D.bins - 1))));
const isMethod = (k) => k < METHODS;
// whose model an attack is made on, in words
const holder = (s) => D.holders[s] ?? "nothing";

// ---- look-ups ----
const cellKey = (s, e, t, a, k) => [s, e, t, a, k].join();
const cellAt = new Map(
  C.task.map((t, i) => [cellKey(C.surrogate[i], C.epsilon[i], t, C.attack[i], C.target[i]), i]),
);
const riskAt = new Map(
  D.risk.value.map((_, i) => [[D.risk.rate[i], D.risk.surrogate[i], D.risk.epsilon[i], D.risk.target[i]].join(), i]),
);
const E50 = D.epsilon50;
const e50At = new Map(
  E50.text.map((_, i) => [[E50.surrogate[i], E50.attack[i], E50.task[i], E50.target[i]].join(), i]),
);
const flaggedAt = new Set(
  D.flags.task.map((t, i) =>
    cellKey(D.flags.surrogate[i], D.flags.epsilon_to[i], t, D.flags.attack[i], D.flags.target[i])),
);

function riskOf(rate, s, e, k) {
  const i = riskAt.get([rate, s, e, k].join());
  return i === undefined || !known(D.risk.value[i])
    ? null
    : { value: D.risk.value[i], low: D.risk.low[i], high: D.risk.high[i], cells: D.risk.cells[i] };
}

// the surrogate that fools a target most often at a budget, and how often
const worstOf = (e, k) => D.worst[e]?.[k] ?? null;
function underWorst(e, k) {
  const s = worstOf(e, k);
  return s === null ? null : riskOf("asr", s, e, k);
}

// ---- the same figures as a table: nothing needs a pointer ----
const figure = (rate, low, high, n) => (known(rate)
  ? [pct(rate, 1), el("small", { class: "ends" }, `${ends(low, high, 1).trim()} n\u00a0${n}`)] : [MISSING]);

// groups: { title, rows: [{ name, cells: [[…], …] }] }
function figuresTable(caption, columns, groups) {
  const head = el("tr", {}, el("th", { scope: "col" }, "target"), ...columns.map((name) => el("th", { scope: "col" }, name)));
  return el("table", { class: "plain numbers" }, el("caption", {}, caption), el("thead", {}, head),
    ...groups.map((group) => el("tbody", {},
      el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: columns.length + 1 }, ...wrapped(group.title))),
      ...group.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, ...wrapped(row.name)),
        ...row.cells.map((cell) => el("td", {}, ...cell)))))));
}

// made only once somebody opens it: of a large study it is large
function folded(id, make) {
  const fold = byId(id);
  const fill = () => { if (fold.open) { fold.querySelector(".scroll").replaceChildren(make()); cueAll(); } };
  fold.addEventListener("toggle", fill);
  return fill;
}

// ---- a cue where something is wider than the screen ----
function cue(box) {
  const over = box.scrollWidth > box.clientWidth + 2;
  box.classList.toggle("more-right", over && box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
  box.classList.toggle("more-left", over && box.scrollLeft > 2);
  const said = box.previousElementSibling?.classList.contains("cue") ? box.previousElementSibling : null;
  if (over && !said) box.before(el("p", { class: "cue", "aria-hidden": "true" }, "wider than the screen: scroll sideways →"));
  if (!over && said) said.remove();
}
function cueAll() { document.querySelectorAll(".scroll").forEach(cue); }
document.addEventListener("scroll", (event) => { if (event.target.classList?.contains("scroll")) cue(event.target); },
  { passive: true, capture: true });
document.addEventListener("toggle", cueAll, { capture: true });

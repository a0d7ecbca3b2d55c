const D = JSON.parse(document.getElementById("data").textContent);
const C = D.cells;
const METHODS = D.methods;
const MISSING = "–";
const state = {
  surrogate: D.defaults.surrogate,
  epsilon: D.defaults.epsilon,
  attack: D.defaults.attack,
  attack50: -1,
  risk: "relative",
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

// a name that may break after the marks registry names are built with
function wrapped(name) {
  const parts = name.split(/(?<=[_+])/);
  return parts.flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));
}

const known = (value) => value !== null && value !== undefined;
const pct = (rate, digits = 0) => (known(rate) ? (100 * rate).toFixed(digits) + "%" : MISSING);
const ends = (low, high, digits = 0) =>
  !known(low) ? "" : ` [${(100 * low).toFixed(digits)}, ${known(high) ? (100 * high).toFixed(digits) + "]" : "∞)"}`;
const eps = (value) => String(Number(value.toPrecision(3)));
const budget = (value) => eps(value) + "/255";
const signed = (value) => (known(value) ? (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1) : MISSING);
const bin = (value, top) => Math.max(0, Math.min(D.bins - 1, Math.round((value / top) * (D.bins - 1))));
const isMethod = (k) => k < METHODS;

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

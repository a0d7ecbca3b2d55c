// ---- marks: colour, shape and dash together, so no line rests on colour alone ----
const SHAPES = [
  (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
  (r) => `M${-r * 0.9},${-r * 0.9}H${r * 0.9}V${r * 0.9}H${-r * 0.9}Z`,
  (r) => `M0,${-1.2 * r}L${1.1 * r},${0.85 * r}H${-1.1 * r}Z`,
  (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
  (r) => `M0,${1.2 * r}L${1.1 * r},${-0.85 * r}H${-1.1 * r}Z`,
  (r) => { const w = r * 0.42, l = r * 1.2; return `M${-w},${-l}H${w}V${-w}H${l}V${w}H${w}V${l}H${-w}V${w}H${-l}V${-w}H${-w}Z`; },
  (r) => `M${-r * 1.2},${-r * 0.6}H${r * 1.2}V${r * 0.6}H${-r * 1.2}Z`,
  (r) => `M${-r * 0.6},${-r * 1.2}H${r * 0.6}V${r * 1.2}H${-r * 0.6}Z`,
];
// what merges are held against is drawn in ink: experts whole, their ensemble dotted, the base dashed
const colourClass = (k) => (isMethod(k) ? `k${k % 8}` : "kr");
const REFERENCE_DASH = { expert: null, experts_routed: null, experts_ensemble: "2 3" };
const referenceDash = (name) => (name in REFERENCE_DASH ? REFERENCE_DASH[name] : "6 4");
const dashOf = (k) => (!isMethod(k) ? referenceDash(D.targets[k]) : k >= 8 ? "6 2.5" : null);
function mark(k, x, y, r) {
  const hollow = k >= 8 && isMethod(k);
  return sv("path", {
    class: hollow ? "hollow" : "mark",
    d: SHAPES[isMethod(k) ? k % 8 : 0](isMethod(k) ? r : r * 0.7),
    transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
  });
}
function keySwatch(k, line) {
  const w = line ? 30 : 14;
  const node = sv("svg", { viewBox: `0 0 ${w} 14`, class: `${colourClass(k)} series`, "aria-hidden": "true" });
  if (line) node.append(sv("path", { class: "line stroke", d: `M1,7H${w - 1}`, "stroke-dasharray": dashOf(k) }));
  node.append(mark(k, w / 2, 7, 4));
  return node;
}

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i += 1) found.push(i * step);
  return found;
}

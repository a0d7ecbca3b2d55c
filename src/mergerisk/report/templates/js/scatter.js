// ---- accuracy against risk ----
function riskPoint(k) {
  if (state.risk === "epsilon50") {
    const i = e50At.get([state.surrogate, -1, -1, k].join());
    if (i === undefined || !known(E50.place[i])) return null;
    return { value: E50.place[i], low: E50.low[i], high: E50.high[i], text: E50.text[i], range: E50.range[i] };
  }
  const risk = state.risk === "worst" ? underWorst(state.epsilon, k) : riskOf(state.risk, state.surrogate, state.epsilon, k);
  return risk && { ...risk, text: pct(risk.value, 1), range: ends(risk.low, risk.high, 1).trim() };
}

function scatterPoints() {
  const points = [];
  for (const k of range(D.targets.length)) {
    if (state.risk === "worst" ? false : !isMethod(k) || D.targets[k] === D.surrogates[state.surrogate]) continue;
    const risk = riskPoint(k);
    if (!risk || !known(D.accuracy.value[k])) continue;
    points.push({
      k,
      risk,
      accuracy: { value: D.accuracy.value[k], low: D.accuracy.low[k], high: D.accuracy.high[k] },
    });
  }
  return points;
}

// the methods that no other beats on both axes at once
function frontOf(points, safer) {
  const methods = points.filter((p) => isMethod(p.k));
  return methods
    .filter((p) => !methods.some((q) => q !== p
      && q.accuracy.value >= p.accuracy.value && !safer(p.risk.value, q.risk.value)
      && (q.accuracy.value > p.accuracy.value || safer(q.risk.value, p.risk.value))))
    .sort((a, b) => a.accuracy.value - b.accuracy.value);
}

const FINE = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 255];
const RISK_NAMES = { worst: "ASR under the worst attacker", relative: "relative ASR", asr: "ASR", epsilon50: "median ε50" };

function drawScatter() {
  const figure = byId("scatter");
  const svg = figure.querySelector("svg");
  svg.replaceChildren(sv("desc", {}, "Accuracy grows to the right, risk upwards. The table beside the picture holds the same figures."));
  const width = Math.max(300, Math.floor(figure.clientWidth));
  const height = Math.max(320, Math.min(470, Math.round(width * 0.64)));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const points = scatterPoints();
  const log = state.risk === "epsilon50";
  const safer = (a, b) => (log ? a > b : a < b);
  const front = frontOf(points, safer);
  drawRanking(points.filter((p) => isMethod(p.k)), front);
  if (!points.length) {
    svg.append(sv("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No method has both figures here."));
    return;
  }
  const box = { left: 54, right: width - 16, top: 26, bottom: height - 48 };
  const all = (pick) => points.flatMap(pick);
  const spread = (low, high, pad) => {
    const extra = Math.max((high - low) * pad, 0.01);
    return [low - extra, high + extra];
  };
  let [x0, x1] = spread(
    Math.min(...all((p) => [p.accuracy.low, p.accuracy.value])),
    Math.max(...all((p) => [p.accuracy.high, p.accuracy.value])), 0.1);
  x1 = Math.min(1.005, x1);
  let y0, y1;
  if (log) {
    y0 = Math.log(Math.min(...all((p) => [p.risk.low, p.risk.value])) / 1.15);
    y1 = Math.log(Math.max(...all((p) => [p.risk.high, p.risk.value])) * 1.15);
  } else {
    [y0, y1] = spread(
      Math.min(...all((p) => [p.risk.low, p.risk.value])), Math.max(...all((p) => [p.risk.high, p.risk.value])), 0.12);
    y0 = Math.max(-0.01, y0);
  }
  const X = (v) => box.left + ((v - x0) / (x1 - x0)) * (box.right - box.left);
  const Y = (v) => box.bottom - (((log ? Math.log(v) : v) - y0) / (y1 - y0)) * (box.bottom - box.top);
  for (const t of ticks(x0, x1, width < 500 ? 4 : 7)) {
    svg.append(sv("path", { class: "rule", d: `M${X(t)},${box.top}V${box.bottom}` }));
    svg.append(sv("text", { x: X(t), y: box.bottom + 17, "text-anchor": "middle" }, pct(t)));
  }
  const seen = (values) => values.filter((v) => Math.log(v) >= y0 && Math.log(v) <= y1);
  const measured = log ? seen(D.epsilons) : [];
  const marks = !log ? ticks(y0, y1, 6) : measured.length > 2 ? measured : seen(FINE);
  for (const t of marks) {
    svg.append(sv("path", { class: "rule", d: `M${box.left},${Y(t)}H${box.right}` }));
    svg.append(sv("text", { x: box.left - 7, y: Y(t) + 4, "text-anchor": "end" }, log ? eps(t) : pct(t)));
  }
  svg.append(sv("path", { class: "axis", d: `M${box.left},${box.top}V${box.bottom}H${box.right}` }));
  svg.append(sv("text", { x: (box.left + box.right) / 2, y: height - 10, "text-anchor": "middle" }, "mean clean accuracy"));
  const unit = log ? " (/255)" : "";
  svg.append(sv("text", { x: box.left - 46, y: 13 }, RISK_NAMES[state.risk] + unit));
  const hint = { y: log ? 13 : box.bottom - 8, text: log ? "↗ safer and more accurate" : "safer and more accurate ↘" };
  svg.append(sv("text", { x: box.right, y: hint.y, "text-anchor": "end" }, hint.text));

  if (front.length > 1) {
    svg.append(sv("path", {
      class: "front",
      d: "M" + front.map((p) => `${X(p.accuracy.value)},${Y(p.risk.value)}`).join("L"),
    }));
  }
  for (const p of points) {
    const x = X(p.accuracy.value), y = Y(p.risk.value);
    const group = sv("g", { class: colourClass(p.k) });
    if (known(p.accuracy.low)) group.append(sv("path", { class: "whisker stroke", d: `M${X(p.accuracy.low)},${y}H${X(p.accuracy.high)}` }));
    if (known(p.risk.low)) group.append(sv("path", { class: "whisker stroke", d: `M${x},${Y(p.risk.low)}V${Y(p.risk.high)}` }));
    group.append(mark(p.k, x, y, 5.5));
    const hit = sv("circle", { cx: x, cy: y, r: 14, class: "hit", role: "img", tabindex: 0 });
    hit.dataset.tip = `${D.names[p.k]}\n${RISK_NAMES[state.risk]} ${p.risk.text}${p.risk.range && log ? `, ${p.risk.range}` : ` ${p.risk.range}`}\n`
      + `mean clean accuracy ${pct(p.accuracy.value, 1)}${ends(p.accuracy.low, p.accuracy.high, 1)}`;
    hit.setAttribute("aria-label", hit.dataset.tip.replaceAll("\n", ", "));
    group.append(hit);
    svg.append(group);
  }
  // where there is little room the table below, which has every mark, names the others
  const ranked = points.filter((p) => isMethod(p.k)).sort((a, b) => a.risk.value - b.risk.value);
  const said = new Set(width >= 500 ? points
    : [...points.filter((p) => !isMethod(p.k)), ...front, ranked[0], ranked[ranked.length - 1]]);
  placeLabels(svg, points.filter((p) => said.has(p)).map((p) => ({
    x: X(p.accuracy.value), y: Y(p.risk.value), text: D.names[p.k],
  })), box, [...points.map((p) => ({ x0: X(p.accuracy.value) - 7, x1: X(p.accuracy.value) + 7, y0: Y(p.risk.value) - 7, y1: Y(p.risk.value) + 7 })),
    { x0: box.right - 6.7 * hint.text.length, x1: box.right, y0: hint.y - 11, y1: hint.y + 3 }]);
}

// labels go where they cover least: beside the point, above, below, then further off with a leader
function placeLabels(svg, points, box, obstacles) {
  const taken = [...obstacles];
  const overlap = (a, b) =>
    Math.max(0, Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0)) * Math.max(0, Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0));
  const spots = [[11, -5, 0], [11, 14, 0], [-11, -5, 1], [-11, 14, 1], [0, -12, 0.5], [0, 21, 0.5]];
  for (const far of [26, 42, 58]) spots.push([far, -far, 0], [far, far, 0], [-far, -far, 1], [-far, far, 1], [0, -far, 0.5], [0, far, 0.5]);
  for (const p of [...points].sort((a, b) => a.y - b.y)) {
    const label = sv("text", { class: "name halo" }, p.text);
    svg.append(label);
    const w = label.getComputedTextLength() || 6.7 * p.text.length;
    let best = null;
    spots.forEach(([dx, dy, anchor], i) => {
      const rect = { x0: p.x + dx - anchor * w, y0: p.y + dy - 11, y1: p.y + dy + 3 };
      rect.x1 = rect.x0 + w;
      const outside = Math.max(0, box.left + 3 - rect.x0) + Math.max(0, rect.x1 - box.right - 8)
        + Math.max(0, box.top - 8 - rect.y0) + Math.max(0, rect.y1 - box.bottom);
      const cost = taken.reduce((sum, other) => sum + overlap(rect, other), 0) + 40 * outside + i * 1.5;
      if (!best || cost < best.cost) best = { cost, rect, dx, dy };
    });
    if (Math.abs(best.dy) > 20) {
      svg.append(sv("path", { class: "leader", d: `M${p.x},${p.y}L${p.x + best.dx},${p.y + best.dy + (best.dy > 0 ? -11 : 3)}` }));
    }
    taken.push(best.rect);
    label.setAttribute("x", best.rect.x0);
    label.setAttribute("y", best.rect.y1 - 3);
  }
}

function drawRanking(points, front) {
  const table = byId("ranking");
  const log = state.risk === "epsilon50";
  table.tHead.replaceChildren(el("tr", {},
    el("th", { scope: "col" }, "method"), el("th", { scope: "col", class: "num" }, "accuracy"),
    el("th", { scope: "col", class: "num" }, state.risk === "worst" ? "ASR" : RISK_NAMES[state.risk])));
  const rows = [...points].sort((a, b) => (log ? b.risk.value - a.risk.value : a.risk.value - b.risk.value));
  table.tBodies[0].replaceChildren(...rows.map((p) =>
    el("tr", {},
      el("th", { scope: "row" }, keySwatch(p.k, false), ...wrapped(D.targets[p.k]),
        front.includes(p) ? el("span", { class: "tag", title: "No other method is both safer and more accurate" }, "best trade") : null),
      el("td", { class: "num" }, pct(p.accuracy.value, 1), " ", el("small", { class: "ends" }, ends(p.accuracy.low, p.accuracy.high, 1).trim())),
      el("td", { class: "num" }, p.risk.text, " ", el("small", { class: "ends" }, p.risk.range)))));
}

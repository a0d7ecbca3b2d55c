// ---- curves ----
const FEW = 2;
// of more lines than an eye can follow, only the safest and the riskiest method are drawn at first
function hideMost() {
  const risk = (k) => underWorst(state.epsilon, k)?.value ?? Infinity;
  const ranked = range(METHODS).sort((a, b) => risk(a) - risk(b));
  for (const k of ranked.slice(1, -1)) hiddenLines.add(k);
}

function drawKeys() {
  byId("keys").replaceChildren(...range(D.targets.length).map((k) => {
    const button = el("button", { type: "button", "aria-pressed": String(!hiddenLines.has(k)) },
      keySwatch(k, true), el("span", {}, ...wrapped(D.names[k])));
    button.addEventListener("click", () => {
      if (hiddenLines.has(k)) hiddenLines.delete(k); else hiddenLines.add(k);
      button.setAttribute("aria-pressed", String(!hiddenLines.has(k)));
      drawCurves();
    });
    const light = (on) => () => {
      for (const series of document.querySelectorAll("#panels .series")) {
        const own = Number(series.dataset.k) === k;
        series.classList.toggle("dimmed", on && !own && !hiddenLines.has(k));
        series.classList.toggle("lit", on && own);
      }
    };
    button.addEventListener("pointerenter", light(true));
    button.addEventListener("pointerleave", light(false));
    button.addEventListener("focus", light(true));
    button.addEventListener("blur", light(false));
    return button;
  }));
}

function curveOf(task, k) {
  const points = [];
  D.epsilons.forEach((epsilon, e) => {
    const i = cellAt.get(cellKey(state.surrogate, e, task, state.attack, k));
    if (i !== undefined && known(C.asr[i])) points.push({ e, i, asr: C.asr[i], low: C.asr_low[i], high: C.asr_high[i] });
  });
  return points;
}

function panel(task) {
  const width = panel.width, height = Math.round(width * 0.68);
  const box = { left: 40, right: width - 10, top: 8, bottom: height - 36 };
  const svg = sv("svg", { viewBox: `0 0 ${width} ${height}`, role: "application", "aria-roledescription": "chart", tabindex: 0, class: "hover",
    "aria-label": `${D.tasks[task]}: ASR against budget for each target, attack ${D.attacks[state.attack] || ""}` });
  svg.append(sv("desc", {}, "Left and right arrow keys read the values at each budget."));
  const X = (e) => box.left + 6 + D.places[e] * (box.right - box.left - 12);
  const Y = (v) => box.bottom - v * (box.bottom - box.top);
  for (const v of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(sv("path", { class: v === 0.5 ? "half" : "rule", d: `M${box.left},${Y(v)}H${box.right}` }));
    if (v !== 0.25 && v !== 0.75) svg.append(sv("text", { x: box.left - 6, y: Y(v) + 4, "text-anchor": "end" }, pct(v)));
  }
  svg.append(sv("path", { class: "axis", d: `M${box.left},${box.bottom}H${box.right}` }));
  let lastX = -Infinity;
  D.epsilons.forEach((value, e) => {
    svg.append(sv("path", { class: "axis", d: `M${X(e)},${box.bottom}v4` }));
    if (X(e) - lastX < 22) return;
    lastX = X(e);
    svg.append(sv("text", { x: X(e), y: box.bottom + 16, "text-anchor": "middle" }, eps(value)));
  });
  svg.append(sv("text", { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" }, "ε (/255)"));
  const cursor = sv("path", { class: "cursor", d: "" });
  svg.append(cursor);
  const order = [...range(D.targets.length)].reverse().filter((k) => !hiddenLines.has(k));
  for (const k of order) {
    const points = curveOf(task, k);
    if (!points.length) continue;
    const group = sv("g", { class: `series ${colourClass(k)}`, "data-k": k });
    const banded = points.filter((p) => known(p.low) && known(p.high));
    if (banded.length > 1) {
      const upper = banded.map((p) => `${X(p.e).toFixed(1)},${Y(p.high).toFixed(1)}`);
      const lower = banded.map((p) => `${X(p.e).toFixed(1)},${Y(p.low).toFixed(1)}`).reverse();
      group.append(sv("path", { class: `band fill${order.length > FEW ? " quiet" : ""}`, d: `M${[...upper, ...lower].join("L")}Z` }));
    }
    group.append(sv("path", { class: "line stroke", "stroke-dasharray": dashOf(k),
      d: "M" + points.map((p) => `${X(p.e).toFixed(1)},${Y(p.asr).toFixed(1)}`).join("L") }));
    for (const p of points) {
      group.append(mark(k, X(p.e), Y(p.asr), 3.1));
      if (flaggedAt.has(cellKey(state.surrogate, p.e, task, state.attack, k))) {
        group.append(sv("text", { class: "flagged", x: X(p.e), y: Math.max(Y(p.asr) - 7, 10), "text-anchor": "middle" }, "▼"));
      }
    }
    svg.append(group);
  }
  let current = null;
  const point = (e, anchor) => {
    current = e;
    cursor.setAttribute("d", `M${X(e)},${box.top}V${box.bottom}`);
    const rows = order
      .map((k) => ({ k, i: cellAt.get(cellKey(state.surrogate, e, task, state.attack, k)) }))
      .filter(({ i }) => i !== undefined && known(C.asr[i]))
      .sort((a, b) => C.asr[b.i] - C.asr[a.i])
      .map(({ k, i }) => [D.names[k], `${pct(C.asr[i], 1)}${ends(C.asr_low[i], C.asr_high[i])} n ${C.images_both_correct[i]}`]);
    showTip(svg, anchor, { title: `${D.tasks[task]} · ε = ${budget(D.epsilons[e])}`, rows,
      notes: rows.length ? [] : ["Nothing measured here."] });
  };
  const anchorAt = (e) => {
    const own = svg.getBoundingClientRect();
    const x = own.left + (X(e) / width) * own.width;
    return { left: x, width: 0, top: own.top + 20, bottom: own.top + 20 };
  };
  const leave = () => {
    cursor.setAttribute("d", "");
    current = null;
    hideTip();
  };
  svg.addEventListener("pointermove", (event) => {
    if (!D.epsilons.length) return;
    const own = svg.getBoundingClientRect();
    const x = ((event.clientX - own.left) / own.width) * width;
    const e = range(D.epsilons.length).reduce((a, b) => (Math.abs(X(b) - x) < Math.abs(X(a) - x) ? b : a));
    point(e, anchorAt(e));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !D.epsilons.length) return;
    event.preventDefault();
    const e = current === null ? state.epsilon : Math.max(0, Math.min(D.epsilons.length - 1, current + step));
    point(e, anchorAt(e));
  });
  return el("figure", { class: "panel" }, el("h3", {}, ...wrapped(D.tasks[task])), svg);
}

function drawCurves() {
  const grid = byId("panels");
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ");
  panel.width = Math.max(240, Math.floor(parseFloat(columns[0])) || 285);
  grid.replaceChildren(...range(D.tasks.length).map(panel));
  fillCurveFigures();
}
const fillCurveFigures = folded("curve-figures", () => figuresTable(
  `ASR of ${D.attacks[state.attack] ?? "no attack"} made on ${holder(state.surrogate)}, with 95% intervals; `
    + "n: images that surrogate and target both get right", D.epsilons.map((epsilon) => `ε = ${budget(epsilon)}`),
  range(D.tasks.length).map((t) => ({ title: D.tasks[t], rows: range(D.targets.length).map((k) => ({ name: D.names[k],
    cells: range(D.epsilons.length).map((e) => {
      const i = cellAt.get(cellKey(state.surrogate, e, t, state.attack, k));
      return i === undefined ? [MISSING] : figure(C.asr[i], C.asr_low[i], C.asr_high[i], C.images_both_correct[i]);
    }) })) }))));

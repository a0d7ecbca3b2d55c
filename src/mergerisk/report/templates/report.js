"use strict";
// The page's only script. It reads the data block, keeps what the selectors say in `state`, and draws from both.
// Names are only ever set as text, never as markup.
(() => {
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
    order: "risk",
  };
  const hiddenLines = new Set();

  // ---- small helpers -------------------------------------------------------------------------------------
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
    known(low) && known(high) ? ` [${(100 * low).toFixed(digits)}, ${(100 * high).toFixed(digits)}]` : "";
  const eps = (value) => String(Number(value.toPrecision(3)));
  const budget = (value) => eps(value) + "/255";
  const signed = (value) => (known(value) ? (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1) : MISSING);
  const bin = (value) => Math.max(0, Math.min(D.bins - 1, Math.round((value / D.relative_top) * (D.bins - 1))));
  const isMethod = (k) => k < METHODS;

  // ---- look-ups ------------------------------------------------------------------------------------------
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

  // ---- tooltip -------------------------------------------------------------------------------------------
  const tip = byId("tip");
  let tipFor = null;

  function showTip(owner, box, content) {
    tip.replaceChildren();
    tip.append(el("b", {}, content.title));
    if (content.rows && content.rows.length) {
      const list = el("dl");
      for (const [name, value] of content.rows) list.append(el("dt", {}, name), el("dd", {}, value));
      tip.append(list);
    }
    for (const note of content.notes || []) tip.append(el("p", {}, note));
    tip.hidden = false;
    const size = tip.getBoundingClientRect();
    let left = box.left + box.width / 2 + 12;
    if (left + size.width > innerWidth - 8) left = box.left + box.width / 2 - size.width - 12;
    let top = box.bottom + 8;
    if (top + size.height > innerHeight - 8) top = box.top - size.height - 8;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, top) + "px";
    if (tipFor && tipFor !== owner) tipFor.removeAttribute("aria-describedby");
    tipFor = owner;
    owner.setAttribute("aria-describedby", "tip");
  }

  function hideTip() {
    tip.hidden = true;
    if (tipFor) tipFor.removeAttribute("aria-describedby");
    tipFor = null;
  }

  function tipOf(node) {
    if (node.dataset.cell) return cellTip(Number(node.dataset.cell));
    const [title, ...notes] = node.dataset.tip.split("\n");
    return { title, notes };
  }

  const TIPPED = "[data-cell],[data-tip]";
  function openFrom(event) {
    const node = event.target.closest ? event.target.closest(TIPPED) : null;
    if (node) showTip(node, node.getBoundingClientRect(), tipOf(node));
    else if (event.type === "pointerover" && tipFor && !event.target.closest("svg.hover")) hideTip();
  }
  document.addEventListener("pointerover", openFrom);
  document.addEventListener("focusin", openFrom);
  document.addEventListener("focusout", hideTip);
  document.addEventListener("scroll", hideTip, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });

  // titles written by the server become tooltips that the keyboard and a finger can open too
  for (const cell of document.querySelectorAll("table.grid td[title]")) {
    cell.dataset.tip = cell.title;
    cell.removeAttribute("title");
  }

  // ---- keyboard: one tab stop per table, arrow keys inside -----------------------------------------------
  function enterable(table) {
    const cells = [...table.querySelectorAll("tbody td")];
    cells.forEach((cell, i) => cell.setAttribute("tabindex", i ? "-1" : "0"));
  }
  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  for (const table of document.querySelectorAll("table.grid")) {
    enterable(table);
    table.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      const cell = event.target.closest("td");
      if (!step || !cell) return;
      event.preventDefault();
      const rows = [...table.tBodies[0].rows];
      const row = rows[rows.indexOf(cell.parentNode) + step[0]];
      const next = row && row.cells[cell.cellIndex + step[1]];
      if (!next || next.tagName !== "TD") return;
      cell.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  }

  // ---- marks: colour, shape and dash together, so no line rests on colour alone ---------------------------
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
  const REFERENCE_DASHES = ["1.5 3", "7 3"];
  const colourClass = (k) => (isMethod(k) ? `k${k % 8}` : "kr");
  const dashOf = (k) => (!isMethod(k) ? REFERENCE_DASHES[(k - METHODS) % 2] : k >= 8 ? "6 2.5" : null);
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

  // ---- accuracy against risk -----------------------------------------------------------------------------
  function riskPoint(k) {
    if (state.risk === "epsilon50") {
      const i = e50At.get([state.surrogate, -1, -1, k].join());
      if (i === undefined || !known(E50.place[i])) return null;
      return { value: E50.place[i], low: E50.low[i], high: E50.high[i], text: E50.text[i], range: E50.range[i] };
    }
    const risk = riskOf(state.risk, state.surrogate, state.epsilon, k);
    return risk && { ...risk, text: pct(risk.value, 1), range: ends(risk.low, risk.high, 1).trim() };
  }

  function scatterPoints() {
    const points = [];
    for (const k of range(METHODS)) {
      if (D.targets[k] === D.surrogates[state.surrogate]) continue;
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

  const FINE = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 255];
  const RISK_NAMES = { relative: "mean relative ASR", asr: "mean ASR", epsilon50: "median ε50" };

  function drawScatter() {
    const figure = byId("scatter");
    const svg = figure.querySelector("svg");
    svg.replaceChildren();
    const width = Math.max(300, Math.floor(figure.clientWidth));
    const height = Math.max(320, Math.min(470, Math.round(width * 0.64)));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const points = scatterPoints();
    drawRanking(points);
    if (!points.length) {
      svg.append(sv("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No method has both figures here."));
      return;
    }
    const log = state.risk === "epsilon50";
    const safer = (a, b) => (log ? a > b : a < b);
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

    const front = points
      .filter((p) => !points.some((q) => q !== p
        && q.accuracy.value >= p.accuracy.value && !safer(p.risk.value, q.risk.value)
        && (q.accuracy.value > p.accuracy.value || safer(q.risk.value, p.risk.value))))
      .sort((a, b) => a.accuracy.value - b.accuracy.value);
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
      const hit = sv("circle", { cx: x, cy: y, r: 14, fill: "transparent" });
      hit.dataset.tip = `${D.targets[p.k]}\n${RISK_NAMES[state.risk]} ${p.risk.text} (${p.risk.range})\n`
        + `mean clean accuracy ${pct(p.accuracy.value, 1)}${ends(p.accuracy.low, p.accuracy.high, 1)}`;
      group.append(hit);
      svg.append(group);
    }
    placeLabels(svg, points.map((p) => ({
      x: X(p.accuracy.value), y: Y(p.risk.value), text: D.targets[p.k],
    })), box, [{ x0: box.right - 6.7 * hint.text.length, x1: box.right, y0: hint.y - 11, y1: hint.y + 3 }]);
  }

  // labels go where they cover least: beside the point, above, below, then further off with a leader
  function placeLabels(svg, points, box, obstacles) {
    const taken = [...obstacles, ...points.map((p) => ({ x0: p.x - 7, x1: p.x + 7, y0: p.y - 7, y1: p.y + 7 }))];
    const overlap = (a, b) =>
      Math.max(0, Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0)) * Math.max(0, Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0));
    const spots = [[10, -5, 0], [10, 14, 0], [-10, -5, 1], [-10, 14, 1], [0, -12, 0.5], [0, 21, 0.5]];
    for (const far of [26, 42, 58]) spots.push([far, -far, 0], [far, far, 0], [-far, -far, 1], [-far, far, 1], [0, -far, 0.5], [0, far, 0.5]);
    for (const p of [...points].sort((a, b) => a.y - b.y)) {
      const w = 6.7 * p.text.length;
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
      svg.append(sv("text", { class: "name halo", x: best.rect.x0, y: best.rect.y1 - 3 }, p.text));
    }
  }

  function drawRanking(points) {
    const table = byId("ranking");
    const log = state.risk === "epsilon50";
    table.tHead.replaceChildren(el("tr", {},
      el("th", { scope: "col" }, "method"), el("th", { scope: "col", class: "num" }, "accuracy"),
      el("th", { scope: "col", class: "num" }, RISK_NAMES[state.risk])));
    const rows = [...points].sort((a, b) => (log ? b.risk.value - a.risk.value : a.risk.value - b.risk.value));
    table.tBodies[0].replaceChildren(...rows.map((p) =>
      el("tr", {},
        el("th", { scope: "row" }, keySwatch(p.k, false), ...wrapped(D.targets[p.k])),
        el("td", { class: "num" }, pct(p.accuracy.value, 1)),
        el("td", { class: "num" }, p.risk.text, " ", el("small", {}, log ? "" : p.risk.range)))));
  }

  // ---- relative ASR --------------------------------------------------------------------------------------
  function cellTip(i) {
    const target = D.targets[C.target[i]];
    const white = target === D.surrogates[C.surrogate[i]];
    const over = D.seeds > 1 ? `, ${D.seeds} seeds together` : "";
    const notes = [];
    if (C.saturated[i]) notes.push("Saturated: both are fooled at least 99% of the time, so the ratio says nothing.");
    if (white) notes.push("White box: the target is the surrogate.");
    if (!known(C.relative_asr[i])) notes.push("No relative ASR: the surrogate is never fooled, or no image counts.");
    return {
      title: `${target} · ${D.tasks[C.task[i]]} · ${D.attacks[C.attack[i]]}`,
      rows: [
        ["relative ASR", pct(C.relative_asr[i], 1) + ends(C.relative_low[i], C.relative_high[i], 1)],
        ["ASR", pct(C.asr[i], 1) + ends(C.asr_low[i], C.asr_high[i], 1)],
        ["of images both get right" + over, String(C.images_both_correct[i])],
        ["ASR over all images", pct(C.asr_all[i], 1) + ends(C.asr_all_low[i], C.asr_all_high[i], 1)],
        ["of images attacked" + over, String(C.images[i])],
        ["ASR of the surrogate", pct(C.surrogate_asr[i], 1)],
        ["ΔASR", known(C.delta_asr[i]) ? signed(C.delta_asr[i]) + " pp" : MISSING],
        ["same mistake as the surrogate", pct(C.same_mistake[i], 1)],
        ["mean L2 of the change", known(C.mean_l2[i]) ? C.mean_l2[i].toFixed(3) : MISSING],
        ["clean accuracy, surrogate / target", `${pct(C.clean_accuracy_surrogate[i])} / ${pct(C.clean_accuracy_target[i])}`],
      ],
      notes,
    };
  }

  function heatOrder() {
    const methods = range(METHODS);
    if (state.order === "risk") {
      const value = (k) => {
        const risk = riskOf("relative", state.surrogate, state.epsilon, k);
        return risk && D.targets[k] !== D.surrogates[state.surrogate] ? risk.value : Infinity;
      };
      methods.sort((a, b) => (value(a) === value(b) ? a - b : value(a) - value(b)));
    }
    return [...methods, ...range(D.targets.length).slice(METHODS)];
  }

  function heatCell(i, gap) {
    const value = C.relative_asr[i];
    const white = D.targets[C.target[i]] === D.surrogates[C.surrogate[i]];
    const kind = !known(value) ? "none" : white ? "white-box" : C.saturated[i] ? "saturated" : "r" + bin(value);
    return el("td", { class: kind + gap, "data-cell": i }, known(value) ? String(Math.round(100 * value)) : MISSING);
  }

  function drawHeat() {
    const table = byId("heat");
    const top = el("tr", {}, el("th", { class: "corner", scope: "col", rowspan: 2 }, "target"), el("th", { class: "mean", scope: "col", rowspan: 2 }, "mean"));
    const second = el("tr");
    D.tasks.forEach((task) => {
      top.append(el("th", { class: "task gap", scope: "colgroup", colspan: D.attacks.length, title: task }, task));
      D.attacks.forEach((attack, a) => second.append(el("th", { scope: "col", class: a ? "" : "gap" }, el("div", { class: "attack" }, attack))));
    });
    const body = el("tbody");
    heatOrder().forEach((k, place) => {
      const reference = !isMethod(k);
      const row = el("tr", { class: reference ? "reference" + (k === METHODS && place ? " first-reference" : "") : "" });
      row.append(el("th", { scope: "row" }, ...wrapped(D.targets[k])));
      const mean = riskOf("relative", state.surrogate, state.epsilon, k);
      const white = D.targets[k] === D.surrogates[state.surrogate];
      const meanCell = el("td", { class: "mean " + (!mean ? "none" : white ? "white-box" : "r" + bin(mean.value)) },
        mean ? String(Math.round(100 * mean.value)) : MISSING);
      meanCell.dataset.tip = `${D.targets[k]}, mean over tasks and attacks\n`
        + (mean ? `relative ASR ${pct(mean.value, 1)}${ends(mean.low, mean.high, 1)} over ${mean.cells} cells` : "no cell in which every method has a value")
        + (white ? "\nWhite box: the target is the surrogate." : "");
      row.append(meanCell);
      range(D.tasks.length).forEach((t) => range(D.attacks.length).forEach((a) => {
        const i = cellAt.get(cellKey(state.surrogate, state.epsilon, t, a, k));
        const gap = a ? "" : " gap";
        if (i === undefined) {
          const empty = el("td", { class: "none" + gap }, MISSING);
          empty.dataset.tip = `${D.targets[k]} · ${D.tasks[t]} · ${D.attacks[a]}\nNot measured.`;
          row.append(empty);
        } else row.append(heatCell(i, gap));
      }));
      body.append(row);
    });
    table.replaceChildren(el("thead", {}, top, second), body);
    enterable(table);
  }

  // ---- curves --------------------------------------------------------------------------------------------
  function drawKeys() {
    byId("keys").replaceChildren(...range(D.targets.length).map((k) => {
      const button = el("button", { type: "button", "aria-pressed": String(!hiddenLines.has(k)) },
        keySwatch(k, true), el("span", {}, ...wrapped(D.targets[k])));
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
    const svg = sv("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, class: "hover",
      "aria-label": `${D.tasks[task]}: ASR against budget for each target, attack ${D.attacks[state.attack] || ""}` });
    const logs = D.epsilons.map((value) => Math.log(value));
    const [l0, l1] = [logs[0], logs[logs.length - 1]];
    const X = (e) => (l1 > l0 ? box.left + 6 + ((logs[e] - l0) / (l1 - l0)) * (box.right - box.left - 12) : (box.left + box.right) / 2);
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
        group.append(sv("path", { class: "band fill", d: `M${[...upper, ...lower].join("L")}Z` }));
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
        .map(({ k, i }) => [D.targets[k], pct(C.asr[i], 1) + ends(C.asr_low[i], C.asr_high[i])]);
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
    return el("figure", { class: "panel" }, el("h4", {}, ...wrapped(D.tasks[task])), svg);
  }

  function drawCurves() {
    const grid = byId("panels");
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ");
    panel.width = Math.max(240, Math.floor(parseFloat(columns[0])) || 285);
    grid.replaceChildren(...range(D.tasks.length).map(panel));
  }

  // ---- ε50 -----------------------------------------------------------------------------------------------
  function draw50() {
    const table = byId("table50");
    const head = el("tr", {}, el("th", { class: "corner", scope: "col" }, "target"), el("th", { class: "mean", scope: "col" }, "median"));
    D.tasks.forEach((task) => head.append(el("th", { scope: "col" }, ...wrapped(task))));
    const body = el("tbody");
    range(D.targets.length).forEach((k) => {
      const reference = !isMethod(k);
      const row = el("tr", { class: reference ? "reference" + (k === METHODS && k ? " first-reference" : "") : "" },
        el("th", { scope: "row" }, ...wrapped(D.targets[k])));
      const white = D.targets[k] === D.surrogates[state.surrogate];
      for (const t of [-1, ...range(D.tasks.length)]) {
        const i = e50At.get([state.surrogate, state.attack50, t, k].join());
        const has = i !== undefined && E50.colour[i] !== null;
        const cell = el("td", { class: (has ? (white ? "white-box" : "r" + E50.colour[i]) : "none") + (t < 0 ? " mean" : "") }, has ? E50.text[i] : MISSING);
        const where = t < 0 ? "all tasks" : D.tasks[t];
        const what = state.attack50 < 0 ? "all attacks" : D.attacks[state.attack50];
        cell.dataset.tip = `${D.targets[k]} · ${where} · ${what}\n`
          + (has ? `ε50 ${E50.text[i]}, range ${E50.range[i]}\n${E50.curves[i] > 1 ? `median of ${E50.curves[i]} curves` : "one curve"}` : "no image counts here")
          + (white ? "\nWhite box: the target is the surrogate." : "");
        row.append(cell);
      }
      body.append(row);
    });
    table.replaceChildren(el("thead", {}, head), body);
    enterable(table);
  }

  // ---- selectors: those of one name move together --------------------------------------------------------
  function draw() {
    hideTip();
    // ε50 is over all budgets
    document.querySelector("#tradeoff select[data-state=epsilon]").disabled = state.risk === "epsilon50";
    drawScatter();
    drawHeat();
    drawCurves();
    draw50();
  }
  for (const select of document.querySelectorAll("select[data-state]")) {
    select.addEventListener("change", () => {
      const name = select.dataset.state;
      state[name] = name === "risk" || name === "order" ? select.value : Number(select.value);
      for (const other of document.querySelectorAll("select[data-state]")) {
        if (other.dataset.state === name) other.value = select.value;
      }
      draw();
    });
    // a browser may restore an earlier choice on reload; the page starts from its defaults
    [...select.options].forEach((option) => { option.selected = option.defaultSelected; });
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    requestAnimationFrame(() => { hideTip(); drawScatter(); drawCurves(); });
  });
  drawKeys();
  draw();
  document.documentElement.dataset.ready = "true";
})();

// ---- the heat map: filtered, sorted, explained ----
const HEAT_RATES = {
  // relative to the surrogate, 100 is the middle of the scale: blue below it, red above
  relative: { column: "relative_asr", name: "relative ASR", top: 2, colour: "d", n: "images_both_correct" },
  asr: { column: "asr", name: "ASR", top: 1, colour: "r", n: "images_both_correct" },
  all: { column: "asr_all", name: "ASR over all images", top: 1, colour: "r", n: "images" },
};
const shown = { tasks: new Set(range(D.tasks.length)), attacks: new Set(range(D.attacks.length)) };

function cellTip(i) {
  const target = D.names[C.target[i]];
  const white = D.targets[C.target[i]] === D.surrogates[C.surrogate[i]];
  const over = D.seeds > 1 ? `, ${D.seeds} seeds together` : "";
  const notes = [];
  if (C.saturated[i]) notes.push("Saturated: both are fooled at least 99% of the time, so the ratio says nothing.");
  if (white) notes.push("White box: the target is the surrogate.");
  if (!known(C.relative_asr[i])) notes.push("No relative ASR: the surrogate is never fooled, or no image counts.");
  return {
    title: `${target} · ${D.tasks[C.task[i]]} · ${D.attacks[C.attack[i]]} · ε ${budget(D.epsilons[C.epsilon[i]])}`,
    rows: [
      ["relative ASR", pct(C.relative_asr[i], 1) + ends(C.relative_asr_low[i], C.relative_asr_high[i], 1)],
      ["ASR", pct(C.asr[i], 1) + ends(C.asr_low[i], C.asr_high[i], 1)],
      ["n: images both get right" + over, String(C.images_both_correct[i])],
      ["ASR over all images", pct(C.asr_all[i], 1) + ends(C.asr_all_low[i], C.asr_all_high[i], 1)],
      ["n: images attacked" + over, String(C.images[i])],
      ["ASR of the surrogate", pct(C.surrogate_asr[i], 1)],
      ["ΔASR", known(C.delta_asr[i]) ? signed(C.delta_asr[i]) + " pp" : MISSING],
      ["same mistake as the surrogate", pct(C.same_mistake[i], 1)],
      ["mean L2 of the change", known(C.mean_l2[i]) ? C.mean_l2[i].toFixed(3) : MISSING],
      ["clean accuracy, surrogate / target", `${pct(C.clean_accuracy_surrogate[i])} / ${pct(C.clean_accuracy_target[i])}`],
    ],
    notes,
  };
}

// widths in px: of a column of three digits, and what sets a task apart
const [NAME, MEAN, DIGITS, GAP] = [176, 42, 22, 7];
const heatRate = () => HEAT_RATES[state.rate];
const heatIndex = (t, a, k) => cellAt.get(cellKey(state.surrogate, state.epsilon, t, a, k));
const everythingShown = () =>
  shown.tasks.size === D.tasks.length && shown.attacks.size === D.attacks.length;

function heatValue(t, a, k) {
  const i = heatIndex(t, a, k);
  return i === undefined ? null : C[heatRate().column][i];
}

// the mean of a row: the study's own, with its interval, while everything is shown; else that of what is shown
// (of relative ASR the ratio of two means, as everywhere: a mean of ratios would be carried by a few cells)
function heatMean(k) {
  if (everythingShown() && state.rate !== "all") return riskOf(state.rate, state.surrogate, state.epsilon, k);
  const over = (column) => {
    const means = [];
    let cells = 0;
    for (const t of shown.tasks) {
      const places = [...shown.attacks].map((a) => heatIndex(t, a, k)).filter((i) => i !== undefined);
      const values = places.map((i) => C[column][i]).filter(known);
      cells += values.length;
      if (values.length) means.push(values.reduce((sum, v) => sum + v, 0) / values.length);
    }
    return { sum: means.reduce((sum, v) => sum + v, 0), count: means.length, cells };
  };
  const found = over(state.rate === "relative" ? "asr" : heatRate().column);
  const divisor = state.rate === "relative" ? over("surrogate_asr").sum : found.count;
  return found.count && divisor ? { value: found.sum / divisor, low: null, high: null, cells: found.cells } : null;
}

const isWhite = (k) => D.targets[k] === D.surrogates[state.surrogate];

function heatOrder() {
  const wanted = state.search.trim().toLowerCase();
  const rows = range(D.targets.length).filter((k) => !wanted || `${D.targets[k]} ${D.names[k]}`.toLowerCase().includes(wanted));
  const { column, descending } = state.sort;
  if (column === null) return rows;
  const value = (k) => {
    const found = column === "mean" ? heatMean(k)?.value : heatValue(...column, k);
    return known(found) ? found : null;
  };
  // methods before ingredients, whatever the order; what has no value, and a white box, last of its kind
  const rank = (k) => (isMethod(k) ? 0 : 2) + (value(k) === null || isWhite(k) ? 1 : 0);
  return rows.sort((a, b) =>
    rank(a) - rank(b) || ((value(a) ?? 0) - (value(b) ?? 0)) * (descending ? -1 : 1) || a - b);
}

function heatCell(t, a, k, gap) {
  const i = heatIndex(t, a, k);
  if (i === undefined) {
    const empty = el("td", { class: "none" + gap }, MISSING);
    empty.dataset.tip = `${D.names[k]} · ${D.tasks[t]} · ${D.attacks[a]}\nNot measured.`;
    return empty;
  }
  const value = C[heatRate().column][i];
  const kind = !known(value) ? "none" : isWhite(k) ? "white-box" : C.saturated[i] ? "saturated" : heatRate().colour + bin(value, heatRate().top);
  return el("td", { class: kind + gap, "data-cell": i }, known(value) ? String(Math.round(100 * value)) : MISSING);
}

function meanCell(k) {
  const mean = heatMean(k);
  const cell = el("td", { class: "mean " + (!mean ? "none" : isWhite(k) ? "white-box" : heatRate().colour + bin(mean.value, heatRate().top)) },
    mean ? String(Math.round(100 * mean.value)) : MISSING);
  const over = everythingShown() ? "over tasks and attacks" : "over the tasks and attacks shown";
  const what = state.rate === "relative" ? `mean ASR divided by the surrogate’s, both ${over}` : `mean ${over}`;
  cell.dataset.tip = `${D.names[k]}, ${what}\n`
    + (mean ? `${heatRate().name} ${pct(mean.value, 1)}${ends(mean.low, mean.high, 1)} over ${mean.cells} cells` : "no cell in which every method has a value")
    + (mean && !known(mean.low) ? "\nIts interval is given for the relative ASR and the ASR of the whole study." : "")
    + (isWhite(k) ? "\nWhite box: the target is the surrogate." : "");
  return cell;
}

// a header that sorts: rising, falling, then back to the mean
function sortHeader(column, label, attributes, ...content) {
  const same = String(state.sort.column) === String(column);
  const header = el("th", { scope: "col", ...attributes,
    "aria-sort": same ? (state.sort.descending ? "descending" : "ascending") : null });
  const button = el("button", { type: "button", class: "sorter", "aria-label": `${label}: sort`, title: `${label}: sort` },
    ...content, el("span", { class: "arrow", "aria-hidden": "true" }, same ? (state.sort.descending ? "▼" : "▲") : ""));
  button.addEventListener("click", () => {
    state.sort = !same ? { column, descending: false } : !state.sort.descending ? { column, descending: true } : { column: "mean", descending: false };
    byId("order").value = state.sort.column === "mean" && !state.sort.descending ? "risk" : "column";
    drawHeat();
    byId("heat").querySelector(`button[aria-label="${CSS.escape(`${label}: sort`)}"]`)?.focus();
  });
  header.append(button);
  return header;
}

function drawHeat() {
  const table = byId("heat");
  const tasks = range(D.tasks.length).filter((t) => shown.tasks.has(t));
  const attacks = range(D.attacks.length).filter((a) => shown.attacks.has(a));
  const top = el("tr", {}, el("th", { class: "corner", scope: "col", rowspan: 2 }, "target"),
    sortHeader("mean", "mean", { class: "mean", rowspan: 2 }, "mean"));
  const second = el("tr");
  for (const t of attacks.length ? tasks : []) {
    top.append(el("th", { class: "task gap", scope: "colgroup", colspan: attacks.length, title: D.tasks[t] }, D.tasks[t]));
    attacks.forEach((a, place) => second.append(sortHeader([t, a], `${D.tasks[t]}, ${D.attacks[a]}`,
      { class: place ? "" : "gap" }, el("span", { class: "attack" }, D.attacks[a]))));
  }
  const body = el("tbody");
  const rows = heatOrder();
  const firstReference = rows.find((k) => !isMethod(k));
  rows.forEach((k, place) => {
    const row = el("tr", { class: isMethod(k) ? null : "reference" + (k === firstReference && place ? " first-reference" : "") },
      el("th", { scope: "row" }, ...wrapped(D.names[k])), meanCell(k));
    for (const t of tasks) attacks.forEach((a, position) => row.append(heatCell(t, a, k, position ? "" : " gap")));
    body.append(row);
  });
  if (!rows.length) body.append(el("tr", {}, el("td", { class: "none", colspan: 2 }, "no target has this in its name")));
  const caption = el("caption", {}, `${heatRate().name.replace(/^r/, "R")}, in percent, of attacks made on ${holder(state.surrogate)}`
    + (D.epsilons.length ? ` at ε = ${budget(D.epsilons[state.epsilon])}` : ""));
  const widths = attacks.length ? tasks.flatMap(() => attacks.map((_, place) => (place ? 0 : GAP) + DIGITS)) : [];
  table.style.minWidth = `${NAME + MEAN + widths.reduce((sum, width) => sum + width, 0)}px`;
  const columns = el("colgroup", {}, el("col", { style: `width:${NAME}px` }), el("col", { style: `width:${MEAN}px` }),
    ...widths.map((width) => el("col", { style: `width:${width}px` })));
  table.replaceChildren(caption, columns, el("thead", {}, top, second), body);
  enterable(table);
  byId("heat-scale").textContent = `${heatRate().name}, %`;
  byId("heat-top").textContent = heatRate().top > 1 ? `≥${Math.round(100 * heatRate().top)}` : "100";
  byId("heat-steps").replaceChildren(...range(D.bins).map((i) => el("i", { class: heatRate().colour + i },
    heatRate().top > 1 && 2 * i === D.bins - 1 ? "100" : "")));
  fillHeatFigures();
  byId("heat-status").textContent = `${rows.length} of ${D.targets.length} targets, ${tasks.length} of ${D.tasks.length} tasks, `
    + `${attacks.length} of ${D.attacks.length} attacks shown`;
}

function filterBoxes(name, labels) {
  byId(`filter-${name}`).append(...labels.map((label, i) => {
    const box = el("input", { type: "checkbox", checked: "" });
    box.addEventListener("change", () => {
      if (box.checked) shown[name].add(i); else shown[name].delete(i);
      drawHeat();
    });
    return el("label", {}, box, " ", ...wrapped(label));
  }));
}
for (const name of ["tasks", "attacks"]) {
  filterBoxes(name, D[name]);
  for (const button of document.querySelectorAll(`[data-all=${name}]`)) {
    button.addEventListener("click", () => {
      const on = button.dataset.on === "true";
      for (const box of byId(`filter-${name}`).querySelectorAll("input")) box.checked = on;
      shown[name] = new Set(on ? range(D[name].length) : []);
      drawHeat();
    });
  }
}
byId("search").addEventListener("input", (event) => {
  state.search = event.target.value;
  drawHeat();
});
byId("order").addEventListener("change", (event) => {
  state.sort = { column: event.target.value === "study" ? null : "mean", descending: event.target.value === "high" };
  drawHeat();
});

const fillHeatFigures = folded("heat-figures", () => {
  const { column, name, n } = heatRate();
  const attacks = range(D.attacks.length).filter((a) => shown.attacks.has(a));
  const cell = (t, a, k) => {
    const i = heatIndex(t, a, k);
    return i === undefined ? [MISSING] : figure(C[column][i], C[`${column}_low`][i], C[`${column}_high`][i], C[n][i]);
  };
  const counted = n === "images" ? "images attacked" : "images that surrogate and target both get right";
  return figuresTable(`${name.replace(/^r/, "R")} of attacks made on ${holder(state.surrogate)} at ε = ${budget(D.epsilons[state.epsilon])}, `
    + `with 95% intervals; n: ${counted}`, attacks.map((a) => D.attacks[a]),
    range(D.tasks.length).filter((t) => shown.tasks.has(t)).map((t) => ({ title: D.tasks[t],
      rows: heatOrder().map((k) => ({ name: D.names[k], cells: attacks.map((a) => cell(t, a, k)) })) })));
});

// ---- ε50 ----
function draw50() {
  const table = byId("table50");
  const head = el("tr", {}, el("th", { class: "corner", scope: "col" }, "target"), el("th", { class: "mean", scope: "col" }, "median"));
  D.tasks.forEach((task) => head.append(el("th", { scope: "col" }, ...wrapped(task))));
  const body = el("tbody");
  range(D.targets.length).forEach((k) => {
    const reference = !isMethod(k);
    const row = el("tr", { class: reference ? "reference" + (k === METHODS && k ? " first-reference" : "") : "" },
      el("th", { scope: "row" }, ...wrapped(D.names[k])));
    const white = D.targets[k] === D.surrogates[state.surrogate];
    for (const t of [-1, ...range(D.tasks.length)]) {
      const i = e50At.get([state.surrogate, state.attack50, t, k].join());
      const has = i !== undefined && E50.colour[i] !== null;
      const cell = el("td", { class: (has ? (white ? "white-box" : "r" + E50.colour[i]) : "none") + (t < 0 ? " mean" : "") }, has ? E50.text[i] : MISSING);
      if (has) cell.append(el("small", { class: "ends" }, E50.range[i].replaceAll("/255", "") + `; of ${E50.curves[i]}`));
      const where = t < 0 ? "all tasks" : D.tasks[t];
      const what = state.attack50 < 0 ? "all attacks" : D.attacks[state.attack50];
      cell.dataset.tip = `${D.names[k]} · ${where} · ${what}\n`
        + (has ? `ε50 ${E50.text[i]}, range ${E50.range[i]}\n${E50.curves[i] > 1 ? `median of ${E50.curves[i]} curves` : "one curve"}` : "no image counts here")
        + (white ? "\nWhite box: the target is the surrogate." : "");
      row.append(cell);
    }
    body.append(row);
  });
  const caption = el("caption", {}, `ε50 of attacks made on ${holder(state.surrogate)}, by target and task; below, its range in 1/255 and the number of curves`);
  table.replaceChildren(caption, el("thead", {}, head), body);
  enterable(table);
}

// ---- selectors: those of one name move together ----
function draw() {
  hideTip();
  // ε50 is over all budgets
  document.querySelector("#tradeoff select[data-state=epsilon]").disabled = state.risk === "epsilon50";
  // the worst attacker is another for every method
  document.querySelector("#tradeoff select[data-state=surrogate]").disabled = state.risk === "worst";
  drawScatter();
  drawHeat();
  drawCurves();
  draw50();
  cueAll();
}
for (const select of document.querySelectorAll("select[data-state]")) {
  select.addEventListener("change", () => {
    const name = select.dataset.state;
    state[name] = name === "risk" || name === "rate" ? select.value : Number(select.value);
    for (const other of document.querySelectorAll("select[data-state]")) {
      if (other.dataset.state === name) other.value = select.value;
    }
    draw();
  });
  // a browser may restore an earlier choice on reload; the page starts from its defaults
  [...select.options].forEach((option) => { option.selected = option.defaultSelected; });
}
byId("order").value = "risk";
byId("search").value = "";
for (const button of document.querySelectorAll("[data-flip]")) {
  button.addEventListener("click", () => {
    for (const radio of document.querySelectorAll(`.flip input[value=${button.dataset.flip}]`)) radio.checked = true;
  });
}
let width = innerWidth;
// a printed page has no pointer: everything folded is opened, and a table too wide for the paper is made smaller
const PAPER = 1030;
// rows of figures that are printed; more would be a book, and are in results.csv
const MANY = 150;
let opened = [];
addEventListener("beforeprint", () => {
  const long = D.tasks.length * D.targets.length > MANY;
  opened = [...document.querySelectorAll(`details:not([open])${long ? ":not(.figures)" : ""}`)];
  for (const part of opened) part.open = true;
  fillHeatFigures();
  fillCurveFigures();
  for (const table of document.querySelectorAll(".scroll > table")) {
    if (table.scrollWidth > PAPER) table.style.zoom = String(PAPER / table.scrollWidth);
  }
});
addEventListener("afterprint", () => {
  for (const part of opened) part.open = false;
  for (const table of document.querySelectorAll(".scroll > table")) table.style.zoom = "";
});
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  requestAnimationFrame(() => { hideTip(); drawScatter(); drawCurves(); cueAll(); });
});
hideMost();
drawKeys();
draw();
document.documentElement.dataset.ready = "true";

// ---- tooltip ----
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
// moving by keyboard scrolls the cell into view: its explanation follows it
document.addEventListener("scroll", () => {
  if (tipFor && tipFor === document.activeElement && tipFor.matches(TIPPED)) showTip(tipFor, tipFor.getBoundingClientRect(), tipOf(tipFor));
  else if (tipFor) hideTip();
}, { passive: true, capture: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});

// titles written by the server become tooltips that the keyboard and a finger can open too
for (const cell of document.querySelectorAll("table.grid td[title]")) {
  cell.dataset.tip = cell.title;
  cell.removeAttribute("title");
}

// ---- keyboard: one tab stop per table, arrow keys inside ----
function enterable(table) {
  const cells = [...table.querySelectorAll("tbody td")];
  cells.forEach((cell, i) => cell.setAttribute("tabindex", i ? "-1" : "0"));
}
const FAR = 1e6;
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -FAR], End: [0, FAR] };
for (const table of document.querySelectorAll("table.grid")) {
  enterable(table);
  table.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    const cell = event.target.closest("td");
    if (!step || !cell) return;
    event.preventDefault();
    const rows = [...table.tBodies[0].rows];
    const row = rows[rows.indexOf(cell.parentNode) + step[0]];
    const firstCell = row ? [...row.cells].findIndex((each) => each.tagName === "TD") : 0;
    const place = Math.abs(step[1]) === FAR
      ? Math.max(firstCell, Math.min(cell.cellIndex + step[1], row.cells.length - 1)) : cell.cellIndex + step[1];
    const next = row && row.cells[place];
    if (!next || next.tagName !== "TD") return;
    cell.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}

// ---- filters: a row stays where its base, its table's tasks and attackers, and its name are asked for ----
const byId = (id) => document.getElementById(id);
const tables = [...document.querySelectorAll("[data-table]")];
const filters = [...document.querySelectorAll("select[data-filter]")];
const search = byId("search"), status = byId("status"), sorted = byId("sorted");
const has = (list, wanted) => wanted === "" || list.split(" ").includes(wanted);

function show() {
  const wanted = Object.fromEntries(filters.map((filter) => [filter.dataset.filter, filter.value]));
  const text = search.value.trim().toLowerCase();
  let shown = 0, all = 0;
  for (const table of tables) {
    const here = has(table.dataset.task, wanted.task) && has(table.dataset.attacker, wanted.attacker);
    const rows = [...table.querySelectorAll("tbody tr")];
    let left = 0;
    for (const row of rows) {
      const stays = has(row.dataset.base, wanted.base) && row.dataset.name.includes(text);
      row.hidden = !stays;
      left += stays;
    }
    for (const point of table.querySelectorAll("g[data-base]")) {
      point.toggleAttribute("hidden", !(has(point.dataset.base, wanted.base) && point.dataset.name.includes(text)));
    }
    const filtered = text !== "" || wanted.base !== "";
    table.hidden = !here || (filtered && left === 0);
    shown += table.hidden ? 0 : left;
    all += rows.length;
  }
  status.textContent = shown === all ? ""
    : `${shown} of ${all} methods. Ranks are those among all methods of a table.`;
}

for (const filter of filters) filter.addEventListener("change", show);
search.addEventListener("input", show);
sorted.addEventListener("change", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const head = table.tHead.rows[0].cells[Number(sorted.value)];
    const wanted = sorted.selectedOptions[0].dataset.direction;
    for (let press = 0; press < 2 && head.getAttribute("aria-sort") !== wanted; press += 1) head.querySelector("button").click();
  }
});
byId("controls").hidden = false;
show();

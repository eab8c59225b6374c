// Tables: sorted by a column, the leaderboard filtered too. A cell's full number is in its `data-value`.
function sortable(table) {
  const name = table.dataset.table;
  const heads = table.tHead ? [...table.tHead.rows[table.tHead.rows.length - 1].cells] : [];
  const bodies = [...table.tBodies];
  if (!heads.length) return;
  const rows = bodies.flatMap((body) => [...body.rows].map((row, order) => ({ row, body, order })));
  heads.forEach((head, index) => {
    const button = make("button", { type: "button", className: "sorter" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => change({ [`sort.${name}`]: next(head, index) }, sectionOf(table)));
  });
  watch((state) => {
    const [, at, way] = /^(\d+)([ad])$/.exec(state[`sort.${name}`] ?? "") ?? [];
    heads.forEach((head, index) => {
      if (String(index) === at) head.setAttribute("aria-sort", way === "a" ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    if (at === undefined || Number(at) >= heads.length) {
      for (const { row, body } of rows) body.append(row);
      return;
    }
    const sorted = rows.map((one, order) => ({ ...one, order, key: keyOf(one.row.cells[Number(at)]) }));
    sorted.sort((one, other) => compare(one, other, way === "a" ? 1 : -1));
    bodies[0].append(...sorted.map(({ row }) => row));
  });
}

// Numbers are first sorted the way round that puts the largest on top; a third press restores the table's own order.
function next(head, index) {
  const sorted = head.getAttribute("aria-sort");
  const table = head.closest("table");
  const first = [...table.tBodies].some((body) => [...body.rows].some((row) => row.cells[index]?.dataset.value)) ? "d" : "a";
  const second = first === "d" ? "a" : "d";
  const now = sorted === "ascending" ? "a" : sorted === "descending" ? "d" : "";
  return now === "" ? `${index}${first}` : now === first ? `${index}${second}` : "";
}

function keyOf(cell) {
  if (!cell) return "";
  if (cell.dataset.value !== undefined) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  return cell.textContent.trim();
}

function compare(one, other, sign) {
  if (one.key === null || other.key === null) {
    return (one.key === null) - (other.key === null) || one.order - other.order; // what is missing stays below
  }
  if (typeof one.key === "number" && typeof other.key === "number") return sign * (one.key - other.key) || one.order - other.order;
  return sign * String(one.key).localeCompare(String(other.key), "en", { numeric: true }) || one.order - other.order;
}

const BOUNDS = [1, 2, 4, 8, 16, 32, 64];

function filtered(form) {
  const table = document.querySelector(`#leaderboard table[data-table="${CSS.escape(form.dataset.filters)}"]`);
  if (!table) return;
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]).filter((row) => "label" in row.dataset);
  const of = (key) => withAll("all", distinct(rows.map((row) => row.dataset[key])));
  const factors = rows.map((row) => row.dataset.expansion).filter((text) => text).map(Number);
  const bounds = BOUNDS.filter((bound) => factors.some((one) => one > bound));
  const expansions = [["", "any"], ...bounds.map((bound) => [String(bound), `at most ${bound}`])];
  const kinds = [["", "all"], ["method", "methods"], ["reference", "references"]];
  bindStates(form);
  form.hidden = false;
  watch((state) => {
    const [backbone, site, expansion, kind] = form.querySelectorAll("select");
    fillSelect(backbone, of("backbone"), state.backbone ?? "");
    fillSelect(site, of("site"), state.site ?? "");
    fillSelect(expansion, expansions, state.expansion ?? "");
    fillSelect(kind, kinds, state.kind ?? "");
    let n = 0;
    let unknown = 0;
    for (const row of rows) {
      const { dataset } = row;
      const others =
        (!state.backbone || dataset.backbone === state.backbone) &&
        (!state.site || dataset.site === state.site) &&
        (!state.kind || (dataset.reference === "true") === (state.kind === "reference"));
      const has = Boolean(dataset.expansion);
      row.hidden = !(others && (!state.expansion || (has && Number(dataset.expansion) <= Number(state.expansion))));
      if (others && state.expansion && !has) unknown += 1;
      n += !row.hidden;
    }
    const left = unknown ? `; ${unknown} have no expansion factor` : "";
    const said = `${n} of ${rows.length} rows shown${left}`;
    if (byId("leaderboard-count").textContent !== said) byId("leaderboard-count").textContent = said;
  });
}

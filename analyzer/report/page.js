"use strict";
// What the page adds where scripts run: tables that sort, filters for the single ends, filters to copy for Wireshark.
// Without it everything is there to read. Text from the data is only ever set as text.
(() => {
  const byId = (id) => document.getElementById(id);
  const numbers = new Intl.NumberFormat(document.documentElement.lang);
  const collator = new Intl.Collator(document.documentElement.lang, { numeric: true });

  const keyOf = (cell) => {
    const given = cell.dataset.sort === undefined ? cell.textContent.trim() : cell.dataset.sort;
    const number = given === "" ? NaN : Number(given);
    return { given, number };
  };

  const compare = (a, b) => {
    const aIsNumber = !Number.isNaN(a.number);
    const bIsNumber = !Number.isNaN(b.number);
    if (aIsNumber && bIsNumber) return a.number - b.number;
    if (aIsNumber !== bIsNumber) return aIsNumber ? -1 : 1;
    return collator.compare(a.given, b.given);
  };

  const sortBy = (table, column) => {
    const headings = Array.from(table.tHead.rows[0].cells);
    const isAscending = headings[column].getAttribute("aria-sort") !== "ascending";
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => ({ row, key: keyOf(row.cells[column]) }));
    rows.sort((a, b) => (isAscending ? compare(a.key, b.key) : compare(b.key, a.key)));
    body.append(...rows.map((entry) => entry.row));
    for (const heading of headings) heading.removeAttribute("aria-sort");
    headings[column].setAttribute("aria-sort", isAscending ? "ascending" : "descending");
  };

  const makeSortable = (table) => {
    if (table.tBodies[0].rows.length < 2) return;
    Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
      if (heading.classList.contains("copies")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sortBy(table, column));
      heading.append(button);
    });
  };

  const ends = byId("ends-table");
  const tools = byId("tools");

  const addCopyButtons = () => {
    const rows = Array.from(ends.tBodies[0].rows);
    if (!rows.some((row) => row.dataset.filter)) return;
    const heading = document.createElement("th");
    heading.scope = "col";
    heading.className = "copies";
    heading.textContent = tools.dataset.heading;
    ends.tHead.rows[0].append(heading);
    for (const row of rows) {
      const cell = document.createElement("td");
      cell.className = "copies";
      if (row.dataset.filter) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "copy";
        button.textContent = tools.dataset.copy;
        button.setAttribute("aria-label", `${tools.dataset.copy}: ${row.dataset.filter}`);
        cell.append(button);
      }
      row.append(cell);
    }
    ends.tBodies[0].addEventListener("click", (event) => {
      const button = event.target.closest("button.copy");
      if (button) copy(button.closest("tr").dataset.filter);
    });
  };

  const copy = async (text) => {
    const field = byId("copy-field");
    const status = byId("copy-status");
    byId("copied").hidden = false;
    field.value = text;
    status.textContent = "";
    try {
      await navigator.clipboard.writeText(text);
      status.textContent = tools.dataset.copied;
    } catch {
      field.focus();
      field.select();
      status.textContent = tools.dataset.select;
    }
  };

  const filterRows = () => {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const code = byId("pick").value;
    let shown = 0;
    for (const row of ends.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      const fits = (code === "" || row.dataset.code === code) && words.every((word) => text.includes(word));
      row.hidden = !fits;
      if (fits) shown += 1;
    }
    byId("found").textContent = tools.dataset.found.replace("{n}", numbers.format(shown));
  };

  const showCode = (code) => {
    byId("find").value = "";
    byId("pick").value = code;
    filterRows();
  };

  if (ends && tools) {
    addCopyButtons();
    tools.hidden = false;
    tools.addEventListener("submit", (event) => event.preventDefault());
    byId("find").addEventListener("input", filterRows);
    byId("pick").addEventListener("change", filterRows);
    for (const link of document.querySelectorAll("a[data-show]")) {
      link.addEventListener("click", () => showCode(link.dataset.show));
    }
    filterRows();
  }
  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = Array.from(document.querySelectorAll("details:not([open])"));
    for (const details of closed) details.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
  });
})();

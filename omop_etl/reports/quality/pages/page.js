// Sort, filter, theme. Without this script everything is there and readable.
"use strict";
const value = (cell) => {
  const text = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
  return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    if (head.querySelector("a")) button.setAttribute("aria-label", `${table.dataset.sort} ${head.textContent.trim()}`);
    else button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const one of heads) one.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[place]), row]);
      rows.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
for (const form of document.querySelectorAll(".filters")) {
  const rows = [...document.getElementById(form.dataset.for).tBodies[0].rows];
  const said = form.querySelector("output");
  const run = () => {
    const words = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = form.querySelector("select")?.value ?? "";
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word)) && (!verdict || (row.dataset.verdict ?? "").split(" ").includes(verdict)));
      count += !row.hidden;
    }
    said.textContent = `${count} / ${rows.length} ${said.dataset.words}`;
  };
  form.addEventListener("input", run);
  form.addEventListener("submit", (event) => event.preventDefault());
  run();
}
const root = document.documentElement;
const keep = (theme) => { try { localStorage.setItem("palmares-theme", theme); } catch { /* a page from disk may have no store */ } };
try { const theme = localStorage.getItem("palmares-theme"); if (theme) root.dataset.theme = theme; } catch { /* as above */ }
document.getElementById("theme")?.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  keep(root.dataset.theme);
});
document.getElementById("print")?.addEventListener("click", () => print());
addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("td details")) one.open = true; });

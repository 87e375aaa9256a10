"use strict";
// Without this script the page shows everything. With it, tables sort and download, and mistakes are
// filtered.
const number = text => parseFloat(text.replace(/[,\u00a0 ]/g, "").replace("−", "-"));
const quoted = cell => {
  const text = cell.textContent.trim().replace(/(\d),(?=\d{3})/g, "$1").replace(/−/g, "-");
  return `"${text.replace(/"/g, '""')}"`;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const csv = [...table.rows].map(row => [...row.cells].map(quoted).join(",") + "\n").join("");
  const name = table.parentNode.getAttribute("aria-label");
  const save = document.createElement("button");
  Object.assign(save, {className: "csv", type: "button", textContent: "CSV"});
  save.ariaLabel = `Save as CSV: ${name}`;
  save.onclick = () => {
    const link = document.createElement("a");
    link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(csv)}`;
    link.download = `${name}.csv`;
    link.click();
  };
  table.after(save);
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const down = head.ariaSort !== "descending";
      table.querySelectorAll("th[aria-sort]").forEach(each => each.removeAttribute("aria-sort"));
      head.ariaSort = down ? "descending" : "ascending";
      const text = row => row.cells[column].textContent.trim();
      const order = (a, b) => {
        const difference = number(text(a)) - number(text(b));
        return Number.isNaN(difference) ? text(a).localeCompare(text(b)) : difference;
      };
      body.append(...[...body.rows].sort((a, b) => down ? order(b, a) : order(a, b)));
    };
  });
}
const filter = document.querySelector(".filter");
if (filter) {
  const [actual, predicted] = filter.querySelectorAll("select");
  const status = filter.querySelector("[role=status]");
  const show = (model, most) => {
    let found = 0;
    for (const item of document.querySelectorAll(".mistakes > li")) {
      const fits = item.dataset.pairs.split(" ").some(pair => {
        const [name, label, answer] = pair.split(":");
        return (!model || name === model) && (!actual.value || label === actual.value)
          && (!predicted.value || answer === predicted.value);
      });
      item.hidden = !fits || found >= most;
      found += !item.hidden;
    }
    status.textContent = `${found} shown${model ? `: mistakes of ${model}` : ""}`;
  };
  filter.hidden = false;
  filter.querySelector("button").onclick = () => {
    actual.value = predicted.value = "";
    show("", Infinity);
  };
  actual.onchange = predicted.onchange = () => show("", Infinity);
  for (const link of document.querySelectorAll(".confusion a")) {
    link.addEventListener("click", () => {
      actual.value = link.dataset.actual;
      predicted.value = link.dataset.predicted;
      show(link.dataset.model, 8);
    });
  }
}

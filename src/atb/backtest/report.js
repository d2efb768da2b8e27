// Start the charts and make the table of trades sortable.

function sortBy(table, column, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
  for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const rows = [...body.rows].map((row) => [value(row), row]);
  rows.sort(([a], [b]) => (typeof a === "number" ? a - b : a.localeCompare(b)) * (down ? -1 : 1));
  body.append(...rows.map(([, row]) => row));
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sortBy(table, column, heading));
    heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sortBy(table, column, heading); });
  });
}

const data = JSON.parse(document.getElementById("data").textContent);
const equityChart = new EquityChart(document.getElementById("equity-chart"), data);
const candleChart = new CandleChart(document.getElementById("price-chart"), data);
document.querySelectorAll("table.sortable").forEach(makeSortable);
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.go");
  if (button && candleChart.goTo(Number(button.dataset.row))) document.getElementById("candles").scrollIntoView({ behavior: "smooth" });
});
for (const chart of [equityChart, candleChart]) chart.paint(); // now: the next animation frame may be long in coming
document.documentElement.dataset.ready = "yes";

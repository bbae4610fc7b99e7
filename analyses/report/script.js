"use strict";
// Sort a table by the column whose title is pressed; rows without a value stay last.
for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => {
    const title = button.closest("th");
    const column = [...title.parentNode.children].indexOf(title);
    const down = title.getAttribute("aria-sort") === "ascending";
    const numeric = title.classList.contains("number");
    const body = title.closest("table").tBodies[0];
    const valueOf = (row) => row.children[column].dataset.value;
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort((a, b) => compare(valueOf(a), valueOf(b))));
    for (const other of title.parentNode.children) other.setAttribute("aria-sort", "none");
    title.setAttribute("aria-sort", down ? "descending" : "ascending");
  });
}
// On paper nothing stays folded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});

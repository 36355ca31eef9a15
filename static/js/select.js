// A box that chooses all of a form's boxes, and how many are chosen. Without this script each is chosen by itself.
(() => {
  const boxes = (form) => [...form.querySelectorAll("tbody input[type=checkbox]")];
  const show = (form) => {
    const all = form.querySelector("[data-select-all]");
    const count = form.querySelector("[data-select-count]");
    const chosen = boxes(form).filter((box) => box.checked).length;
    const pages = form.querySelector("input[name=all]");
    // With no row chosen the offer is hidden, and must not stay taken.
    if (pages && chosen === 0) pages.checked = false;
    if (all) {
      all.hidden = boxes(form).length === 0;
      all.checked = chosen > 0 && chosen === boxes(form).length;
      all.indeterminate = chosen > 0 && !all.checked;
    }
    const here = chosen === 1 ? "1 key chosen:" : `${chosen} keys chosen:`;
    if (count) count.textContent = pages?.checked ? "All chosen:" : here;
  };
  const start = () => {
    for (const all of document.querySelectorAll("[data-select-all]")) show(all.form);
  };
  start();
  document.addEventListener("htmx:after:swap", start);
  window.addEventListener("pageshow", start);
  document.addEventListener("change", ({ target }) => {
    const form = target.closest("form");
    if (!form?.querySelector("[data-select-all]")) return;
    if (target.matches("[data-select-all]")) for (const box of boxes(form)) box.checked = target.checked;
    show(form);
  });
})();

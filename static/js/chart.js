// Shows each bar's figures beside it on hover and on keyboard focus. The same figures are the bar's accessible
// name and stand in the table below the chart, so nothing depends on this script.
(() => {
  const hide = (chart) => {
    chart.querySelector(".chart-tip").hidden = true;
  };
  const show = (bar) => {
    const chart = bar.closest(".chart");
    const tip = chart.querySelector(".chart-tip");
    const [title, ...lines] = bar.dataset.tip.split("\n");
    tip.replaceChildren(
      Object.assign(document.createElement("strong"), { textContent: title }),
      ...lines.map((line) => Object.assign(document.createElement("span"), { textContent: line })),
    );
    tip.hidden = false;
    const plot = chart.querySelector(".chart-plot").getBoundingClientRect();
    const box = bar.querySelector(".chart-hit").getBoundingClientRect();
    const left = Math.min(
      Math.max(box.left + box.width / 2 - plot.left - tip.offsetWidth / 2, 0),
      plot.width - tip.offsetWidth,
    );
    // Positions through the object model are allowed by the content security policy; attributes are not.
    tip.style.transform = `translate(${Math.round(left)}px, 0)`;
  };
  const bar = (event) => event.target.closest?.(".chart-bar");
  for (const type of ["pointerover", "focusin"])
    document.addEventListener(type, (event) => bar(event) && show(bar(event)));
  for (const type of ["pointerout", "focusout"])
    document.addEventListener(type, (event) => bar(event) && hide(bar(event).closest(".chart")));
  document.addEventListener("keydown", (event) => {
    // One stop for Tab, arrows from day to day.
    const next = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
    const other = next && bar(event)?.[next];
    if (other?.matches(".chart-bar")) {
      bar(event).setAttribute("tabindex", "-1");
      other.setAttribute("tabindex", "0");
      other.focus();
    }
    if (event.key === "Escape") document.querySelectorAll(".chart").forEach(hide);
  });
})();

// Closes an open `<details class="menu">` when the reader clicks elsewhere or presses Escape.
(() => {
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]"))
      if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = [...document.querySelectorAll("details.menu[open], details.topbar-menu[open]")].pop();
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });
})();

// Copies the text of `data-copy-target` and says so. The button is hidden until this script runs: without it
// the text is selectable.
(() => {
  const show = (root) => {
    for (const button of root.querySelectorAll("[data-copy-target]")) button.hidden = false;
  };
  show(document);
  document.addEventListener("htmx:after:swap", () => show(document));
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy-target]");
    const source = button && document.getElementById(button.dataset.copyTarget);
    if (!source) return;
    const label = button.querySelector("[data-copy-label]") || button;
    const status = button.parentElement.querySelector("[role=status]");
    button.dataset.copyText ??= label.textContent;
    let said = "Copied";
    try {
      await navigator.clipboard.writeText((source.value ?? source.textContent).trim());
    } catch {
      // No clipboard on plain http or without permission: leave the text selected for Ctrl-C.
      getSelection().selectAllChildren(source);
      said = "Press Ctrl+C";
    }
    label.textContent = said;
    button.classList.toggle("copied", said === "Copied");
    if (status) status.textContent = said;
    clearTimeout(button.copyTimer);
    button.copyTimer = setTimeout(() => {
      label.textContent = button.dataset.copyText;
      button.classList.remove("copied");
      if (status) status.textContent = "";
    }, 2000);
  });
})();

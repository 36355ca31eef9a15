// A button that adds its line to a text field, once. It is hidden until this script runs: without it one types.
(() => {
  for (const button of document.querySelectorAll("[data-append-to]")) button.hidden = false;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-append-to]");
    const field = button && document.getElementById(button.dataset.appendTo);
    if (!field) return;
    const lines = field.value.split("\n").filter((line) => line.trim());
    if (!lines.includes(button.dataset.appendLine)) lines.push(button.dataset.appendLine);
    field.value = lines.join("\n");
    field.focus();
  });
})();

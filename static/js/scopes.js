// Says how many of a form's scopes are chosen. Its line is hidden until this script runs.
(() => {
  const show = (line) => {
    const boxes = [...line.closest("fieldset").querySelectorAll("input[type=checkbox]")];
    const chosen = boxes.filter((box) => box.checked).length;
    line.textContent = `${chosen} of ${boxes.length} chosen${chosen > 1 ? "; the fewer, the better" : ""}`;
    line.hidden = boxes.length === 0;
  };
  const lines = document.querySelectorAll("[data-scopes-chosen]");
  for (const line of lines) {
    show(line);
    line.closest("fieldset").addEventListener("change", () => show(line));
  }
  window.addEventListener("pageshow", () => lines.forEach(show));
})();

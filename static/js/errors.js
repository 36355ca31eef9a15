// A form that came back begins at its first mistake: that field gets the focus, and with it screen readers say what
// is wrong. Without this script the mistakes stand beside their fields all the same.
(() => {
  document.querySelector("main [aria-invalid=true]")?.focus();
})();

// Fills the hidden field of a filter with the viewer's time zone, so that its days are theirs. Without it: UTC.
(() => {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const fill = () => {
    for (const field of document.querySelectorAll("[data-time-zone]")) field.value ||= timeZone || "";
  };
  fill();
  document.addEventListener("htmx:after:swap", fill);
})();

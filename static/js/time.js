// Rewrites each `<time data-local>` from UTC to the viewer's zone and keeps the UTC text as its title.
(() => {
  const day = { day: "numeric", month: "short", year: "numeric" };
  const full = new Intl.DateTimeFormat("en-GB", { ...day, hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
  const date = new Intl.DateTimeFormat("en-GB", day);
  const localise = () => {
    for (const time of document.querySelectorAll("time[data-local]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      time.title = time.dataset.utc || time.textContent.trim();
      time.textContent = (time.dataset.local === "date" ? date : full).format(at);
      time.removeAttribute("data-local");
    }
  };
  localise();
  document.addEventListener("htmx:after:swap", localise);
})();

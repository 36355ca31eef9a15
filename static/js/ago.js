// Keeps `data-ago`, the seconds since something when the page was made, true while the page is open.
(() => {
  const text = (seconds) =>
    seconds < 120 ? `${seconds} s ago` : seconds < 7200 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
  const began = new WeakMap();
  const count = () => {
    for (const each of document.querySelectorAll("[data-ago]")) {
      if (!began.has(each)) began.set(each, performance.now() - Number(each.dataset.ago) * 1000);
      each.textContent = text(Math.floor((performance.now() - began.get(each)) / 1000));
    }
  };
  count();
  setInterval(count, 1000);
  document.addEventListener("htmx:after:swap", count);
})();

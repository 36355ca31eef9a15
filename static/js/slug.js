// Proposes an address made from the name while the reader types it, until they write one themselves. The server
// makes the same one from an empty field.
(() => {
  for (const slug of document.querySelectorAll("[data-slug-of]")) {
    const name = document.getElementById(slug.dataset.slugOf);
    let own = slug.value !== "";
    slug.addEventListener("input", () => {
      own = slug.value !== "";
    });
    name.addEventListener("input", () => {
      if (own) return;
      slug.value = name.value
        .normalize("NFKD")
        .replace(/[\u0300-\u036f]/g, "")
        .toLowerCase()
        .replace(/[^a-z0-9\s_-]+/g, "")
        .replace(/[\s_-]+/g, "-")
        .slice(0, 50)
        .replace(/^-|-$/g, "");
    });
  }
})();

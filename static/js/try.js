// Tries the machine API from its reference, with a key that the reader pastes. The key stays in its field: it is
// sent with the calls alone, to this origin, without cookies; it is stored nowhere and cleared when the page is left.
(() => {
  const key = document.getElementById("try-key");
  if (!key) return;
  window.addEventListener("pagehide", () => {
    key.value = "";
  });

  const address = (form) => {
    const path = form.dataset.path.replace(/{(\w+)}/g, (_, name) =>
      encodeURIComponent(form.querySelector(`[data-path="${name}"]`).value.trim()),
    );
    const url = new URL(path, location.origin);
    for (const field of form.querySelectorAll("[data-query]"))
      if (field.value.trim()) url.searchParams.set(field.dataset.query, field.value.trim());
    return url;
  };

  const pretty = (text) => {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text;
    }
  };

  const send = async (form) => {
    const body = form.querySelector("[data-body]");
    const headers = { Authorization: `Bearer ${key.value.trim()}`, Accept: "application/json" };
    if (body) headers["Content-Type"] = "application/json";
    const began = performance.now();
    const answer = await fetch(address(form), {
      method: form.dataset.method,
      headers,
      body: body?.value,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
    });
    const text = await answer.text();
    const took = Math.round(performance.now() - began);
    form.querySelector("[data-try-body]").textContent = pretty(text) || "(no body)";
    form.querySelector("[data-try-headers]").textContent = [...answer.headers].map((pair) => pair.join(": ")).join("\n");
    form.querySelector("[data-try-answer]").hidden = false;
    return `${answer.status} ${answer.statusText}, after ${took} ms`;
  };

  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("[data-try]");
    if (!form) return;
    event.preventDefault();
    const status = form.querySelector("[data-try-status]");
    const button = form.querySelector("button[type=submit]");
    const { method } = form.dataset;
    if (!key.value.trim()) {
      status.textContent = "Paste a key first, at the top of the page.";
      key.focus();
      return;
    }
    if (method !== "GET" && !confirm(`${method} ${address(form).pathname}\n\nThis is no rehearsal: it acts with your key. Send it?`)) return;
    button.disabled = true;
    form.querySelector("[data-try-answer]").hidden = true;
    status.textContent = "Sent; waiting.";
    try {
      status.textContent = await send(form);
    } catch {
      status.textContent = "No answer: the portal is away, or what is filled in cannot be sent.";
    }
    button.disabled = false;
  });
})();

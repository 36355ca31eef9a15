"""What a browser finds wrong with a page: axe in light and dark, width, title, shifts, size, caching, hosts.

A page is loaded once and looked at from all sides; axe is read into it once, and in dark asks for contrast
alone, for nothing else depends on colours.
"""

import gzip
import json
from pathlib import Path
from typing import Any, Final

import axe_playwright_python
from playwright.sync_api import Page, Response

SMALL: Final = {"width": 320, "height": 800}
PHONE: Final = {"width": 390, "height": 844}
MOST_BYTES: Final = 100_000  # of HTML, styles and scripts, compressed
MOST_SHIFT: Final = 0.1
AXE: Final = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()

# Before any script of the page: what moves after it was first drawn, as Cumulative Layout Shift counts it.
WATCH = """window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });"""

_FACTS = """() => ({
  titles: [...document.querySelectorAll("head > title")].map((title) => title.textContent.trim()),
  headings: document.querySelectorAll("h1").length,
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  spilt: [...document.querySelectorAll("main :is(th, td)")]
    .filter((cell) => cell.scrollWidth > cell.clientWidth + 1)
    .filter((cell) => getComputedStyle(cell).overflowX === "visible")
    .slice(0, 3).map((cell) => cell.outerHTML.slice(0, 200)),
  shifted: window.shifted,
  assets: performance.getEntriesByType("resource").filter((entry) => /\\.(css|js)(\\?|$)/.test(entry.name))
    .reduce((sum, entry) => sum + entry.encodedBodySize, 0),
})"""

_CUT = """() => [...document.querySelectorAll(".table-scroll")]
  .filter((table) => table.scrollWidth > table.clientWidth).map((table) => table.ariaLabel)"""

_VIOLATIONS = """async (rules) => {
  const found = await axe.run(document, { resultTypes: ["violations"], ...(rules && { runOnly: rules }) });
  return found.violations.map((each) => ({
    rule: each.id, at: each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)),
  }));
}"""


def look(page: Page, url: str, *, axe: bool = True, status: int = 200) -> list[object]:
    """What is wrong with the page at `url`, in the light and on a small phone, and in the dark."""
    # Colours that fade from light to dark would be judged on their way.
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    response = page.goto(url)
    assert response is not None
    found: list[object] = []
    if response.status != status:
        found.append(f"{response.status} instead of {status}")
    found += _facts(page, response)
    return found + (violations(page) + _dark(page) if axe else [])


def violations(page: Page, *rules: str) -> list[object]:
    """What axe finds, by all rules or by some."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found: list[object] = page.evaluate(_VIOLATIONS, list(rules) or None)
    return found


def cut(page: Page, url: str) -> list[str]:
    """The tables of which a part is seen only by scrolling them."""
    page.goto(url)
    found: list[str] = page.evaluate(_CUT)
    return found


def _dark(page: Page) -> list[object]:
    page.emulate_media(color_scheme="dark")
    return [{"dark": each} for each in violations(page, "color-contrast")]


def _facts(page: Page, response: Response) -> list[object]:
    facts: dict[str, Any] = page.evaluate(_FACTS)
    size = len(gzip.compress(response.body())) + facts["assets"]
    wrong = {
        "title": len(facts["titles"]) != 1 or not facts["titles"][0],
        "heading": facts["headings"] != 1,
        "wider than the screen": facts["wide"] > 0,
        "wider than its cell": bool(facts["spilt"]),
        "moves after it was drawn": facts["shifted"] > MOST_SHIFT,
        "bytes": size > MOST_BYTES,
    }
    return [f"{name}: {json.dumps(facts)}, {size} bytes" for name, is_wrong in wrong.items() if is_wrong]

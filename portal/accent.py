"""The provider's accent colour as the scale that every page is coloured with.

Pure: text in, a stylesheet out. Whatever colour is accepted, words on it and words in it keep the contrast
that WCAG 2.2 asks for (4.5:1), in light and dark.
"""

import re
from typing import Final, NamedTuple

type Colour = tuple[float, float, float]  # red, green, blue; 0 to 255

SHAPE: Final = 3.0  # contrast of a button with the page around it (WCAG 1.4.11)
WORDS: Final = 4.5  # contrast of words with what is behind them (WCAG 1.4.3)
_HEX = re.compile(r"#[0-9A-Fa-f]{6}", re.ASCII)
_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)
_PAGES: Final[tuple[Colour, Colour]] = ((252, 252, 253), (17, 17, 19))  # --page, light and dark
# How much of the accent is in each of the pale steps, light and dark.
_PALE: Final = {
    1: (0.02, 0.03),
    2: (0.04, 0.07),
    3: (0.09, 0.22),
    4: (0.14, 0.30),
    5: (0.20, 0.36),
    6: (0.28, 0.44),
    7: (0.38, 0.54),
    8: (0.52, 0.70),
}


class BadAccent(ValueError):
    """No accent, with a sentence that says why and one that would do."""

    def __init__(self, sentence: str, better: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.better = better


class Accent(NamedTuple):
    """What stands out, on the light page and on the dark one."""

    light: Colour
    dark: Colour


def parse(text: str) -> Accent:
    """`#rrggbb` for both pages, or one for each: light, dark. Raises BadAccent."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not all(_HEX.fullmatch(part) for part in parts):
        raise BadAccent("is not a colour such as #5b5bd6, nor two of them")
    light, dark = (_read(part) for part in (parts[0], parts[-1]))
    for colour, page, name in zip((light, dark), _PAGES, ("light", "dark"), strict=True):
        found = contrast(colour, page)
        if found < SHAPE:
            better = ",".join(map(_hex, (_until(light, _PAGES[0], SHAPE), _until(dark, _PAGES[1], SHAPE))))
            sentence = f"hardly stands out on the {name} page: {found:.1f}:1, and {SHAPE:.0f}:1 is needed"
            raise BadAccent(sentence, better)
    return Accent(light, dark)


def stylesheet(accent: Accent) -> str:
    """Values for the names in static/css/tokens.css that the accent decides."""
    solid = [_solid(colour) for colour in accent]
    light, dark = _scale(solid[0], _PAGES[0], 0), _scale(solid[1], _PAGES[1], 1)
    lines = [f"  --iris-{step}: light-dark({light[step]}, {dark[step]});" for step in light]
    on = [_on(colour) for colour in solid]
    hover = [_mix(_other(each), colour, 0.12) for each, colour in zip(on, solid, strict=True)]
    lines.append(f"  --accent-hover: light-dark({_hex(hover[0])}, {_hex(hover[1])});")
    lines.append(f"  --on-accent: light-dark({_hex(on[0])}, {_hex(on[1])});")
    return ":root {\n" + "\n".join(lines) + "\n}\n"


def contrast(one: Colour, other: Colour) -> float:
    """The ratio of WCAG 2.2, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _scale(colour: Colour, page: Colour, which: int) -> dict[int, str]:
    """The steps of a Radix scale: pale ones for surfaces, 9 itself, 11 and 12 for words on them."""
    steps = {step: _mix(colour, page, shares[which]) for step, shares in _PALE.items()}
    away = _other(page)
    steps[9] = colour
    steps[10] = _mix(away, colour, 0.10)
    # Links stand on the page, on surfaces and on the palest steps; badges on step 3.
    steps[11] = _until(colour, steps[3], WORDS + 0.3)
    steps[12] = _until(colour, steps[5], 7)
    return {step: _hex(value) for step, value in steps.items()}


def _solid(colour: Colour) -> Colour:
    """The colour of a button: a little darker, where white words on it can then be read."""
    return _until(colour, _WHITE, WORDS) if contrast(colour, _WHITE) >= SHAPE else colour


def _on(colour: Colour) -> Colour:
    """Words on it: white if that can be read, else black. One of them always can."""
    return _WHITE if contrast(colour, _WHITE) >= WORDS else _BLACK


def _other(colour: Colour) -> Colour:
    """Black for what is light, white for what is dark."""
    return _BLACK if _luminance(colour) > 0.18 else _WHITE


def _until(colour: Colour, behind: Colour, ratio: float) -> Colour:
    """The colour, taken away from what is behind it no further than the ratio needs."""
    away = _other(behind)
    for hundredths in range(100):
        found = _whole(_mix(away, colour, hundredths / 100))
        if contrast(found, behind) >= ratio:
            return found
    return away


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (a * share + b * (1 - share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _luminance(colour: Colour) -> float:
    red, green, blue = (
        each / 3294.6 if each <= 10.31475 else ((each / 255 + 0.055) / 1.055) ** 2.4 for each in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _read(text: str) -> Colour:
    red, green, blue = (int(text[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def _whole(colour: Colour) -> Colour:
    return _read(_hex(colour))


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{round(each):02x}" for each in colour)

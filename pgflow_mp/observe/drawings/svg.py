"""The parts every drawing is made of: escaped elements, short numbers, the frame that scales."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from typing import Final

from pgflow_mp.redaction import CONTROL

_NOT_IN_XML: Final = re.compile("[\ud800-\udfff\ufffe\uffff]")
_ROUND: Final = (1, 2, 5, 10)

Attribute = str | int | float


def text_of(text: str) -> str:
    """A text for an element or an attribute: escaped, in one line, without what XML does not know."""
    return escape(_NOT_IN_XML.sub("\ufffd", CONTROL.sub(" ", text)))


def places(value: float) -> str:
    """A coordinate with at most one decimal place."""
    return f"{value:.1f}".removesuffix(".0")


def element(name: str, inner: str = "", /, **attributes: Attribute) -> str:
    """An element around ``inner``, which is SVG already; the names of attributes lose a last ``_``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="'
        f'{text_of(value) if isinstance(value, str) else places(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{inner}</{name}>" if inner else f"<{name}{written}/>"


def label(x: float, y: float, text: str, class_: str = "") -> str:
    """A line of text at its baseline."""
    more = {"class_": class_} if class_ else {}
    return element("text", text_of(text), x=x, y=y, **more)


def title(text: str) -> str:
    """What is shown of an element where one points at it."""
    return f"<title>{text_of(text)}</title>"


def drawing(kind: str, width: float, height: float, name: str, description: str, parts: Sequence[str]) -> str:
    """The whole drawing, as wide as there is room; where that is much less than ``width``, it is scrolled.

    ``name`` and ``description`` are read out to those who do not see it. They are told by ``aria-label`` as
    ids could be there twice in a page of many drawings.
    """
    hundreds = min(20, max(1, math.ceil(width / 100)))
    inner = "".join((title(name), f"<desc>{text_of(description)}</desc>", *parts))
    attributes: dict[str, Attribute] = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {places(width)} {places(height)}",
        "class_": f"pgd pgd-{kind} pgd-w{hundreds}",
        "role": "img",
        "aria_label": f"{name}. {description}",
    }
    return f'<div class="pgd-scroll">{element("svg", inner, **attributes)}</div>'


def seconds(value: float) -> str:
    """A time in its own unit, short enough for an axis: 250 µs, 1.5 ms, 20 s, 3 min, 2 h, 5 d."""
    if value == 0:
        return "0"
    for unit, factor in (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        limit = 60.0 if unit == "s" else factor * 1000
        if value < limit * 0.9995:
            return f"{value / factor:.3g} {unit}"
    for unit, factor, limit in (("min", 60.0, 3600.0), ("h", 3600.0, 86400.0)):
        if value < limit:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 86400:.3g} d" if value < 86400_000 else f"{value / 86400:,.0f} d"


def count(value: float) -> str:
    """A number short enough for an axis or a box: 950, 12.3k, 4M."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


def ticks(highest: float, about: int = 4) -> list[float]:
    """Round numbers from 0 to the first that is not below ``highest``."""
    if highest <= 0:
        return [0.0, 1.0]
    raw = highest / about
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * base for factor in _ROUND if factor * base >= raw * 0.999)
    return [step * place for place in range(math.ceil(highest / step - 1e-9) + 1)]


def time_ticks(span: float, about: int = 6) -> list[float]:
    """Round times within 0 to ``span``, in steps that clocks have."""
    steps = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
    raw = max(span, 1e-6) / about
    if raw <= 30:
        base = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * base for factor in _ROUND if factor * base >= raw * 0.999)
    else:
        step = float(next((each for each in steps if each >= raw), 86400 * math.ceil(raw / 86400)))
    return [step * place for place in range(int(span / step + 1e-9) + 1)]

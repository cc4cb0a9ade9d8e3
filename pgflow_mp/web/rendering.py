"""From structs to HTML: templates of this package; values are escaped, without what changes others' text."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pgflow_mp import __version__
from pgflow_mp.observe.drawings.svg import seconds
from pgflow_mp.observe.text import duration, essence, percent, plural, rate, shorten, shorten_middle, size
from pgflow_mp.redaction import printable

ASSETS: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_STATUSES: Final = {"started": "running", "created": "not started"}
"""Words of the database that mean something else to people."""


class Drawn(NamedTuple):
    """A page: its template and what that is given. ``parts`` are drawn again while somebody looks.

    By the id of its element each part has a template of its own. ``over``: nothing changes soon.
    """

    template: str
    parts: dict[str, str]
    values: dict[str, Any]
    over: bool = False
    status: int = 200


@cache
def environment() -> Environment:
    """The templates, with what they may call."""
    found = Environment(
        loader=PackageLoader("pgflow_mp.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
        auto_reload=False,
    )
    found.filters.update(
        {
            "ago": ago,
            "duration": lambda seconds: "" if seconds is None else duration(seconds),
            "exact": lambda value: f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3],
            "moment": moment,
            "number": lambda value: "" if value is None else f"{value:,}",
            "percent": percent,
            "plural": plural,
            "rate": lambda value: "" if value is None else rate(value),
            "short": shorten,
            "drawing": Markup,
            "essence": essence,
            "middle": shorten_middle,
            "took": took,
            "size": lambda value: "" if value is None else size(int(value)),
            "word": lambda status: str(_STATUSES.get(status, status)).replace("_", " "),
        }
    )
    found.globals.update({"version": __version__, "asset": asset_path, "dict": dict, "bar": bar, "len": len})
    return found


def draw(drawn: Drawn, **more: Any) -> str:
    """The whole page as HTML."""
    template = environment().get_template(drawn.template)
    return template.render(**drawn.values, parts=drawn.parts, **more)


def draw_parts(drawn: Drawn, **more: Any) -> dict[str, str]:
    """Those parts of it that change, by their ids."""
    values = {**drawn.values, "parts": drawn.parts, **more}
    return {
        name: environment().get_template(template).render(**values) for name, template in drawn.parts.items()
    }


def asset(name: str) -> bytes:
    """A file that the page needs."""
    return _asset(name)[0]


def asset_path(name: str) -> str:
    """Where a browser gets it: under another name whenever it is another file, so that it can be kept."""
    return f"/assets/{_asset(name)[1]}/{name}"


@cache
def _asset(name: str) -> tuple[bytes, str]:
    from pgflow_mp.observe.drawings.palette import STYLE

    body = resources.files("pgflow_mp.web").joinpath("assets", name).read_bytes()
    if name == "page.css":
        body += STYLE.encode()
    return body, hashlib.sha256(body).hexdigest()[:12]


def _clean(value: Any) -> Any:
    """Texts of others without control characters, also those that turn the direction of what follows."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return "" if value is None else value


def took(value: float | None) -> str:
    """How long something took: 250 µs, 1.5 s, 4:05."""
    if value is None:
        return ""
    return duration(value) if value >= 10 else seconds(max(0.0, value))


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, coarsely; of what is to come: in how long."""
    if moment is None:
        return ""
    past = ((now or datetime.now(UTC)) - moment).total_seconds()
    if past < 0:
        return f"in {_coarse(-past)}"
    return "just now" if past < 2 else f"{_coarse(past)} ago"


def _coarse(span: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if span >= 2 * length:
            return f"{span // length:.0f} {unit}"
    return f"{span:.0f} s"


def moment(value: datetime | None) -> Markup:
    """A time as people say it; the exact one is told to who points at it."""
    if value is None:
        return Markup("")
    exact = value.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.isoformat(timespec="seconds"), f"{exact:%Y-%m-%d %H:%M:%S} UTC", ago(value)
    )


def bar(parts: list[tuple[str, int]], total: int, label: str) -> Markup:
    """A bar of coloured stretches, one for each (kind, count), as wide as their shares of ``total``."""
    at, drawn = 0.0, []
    for kind, count in parts:
        if count <= 0 or total <= 0:
            continue
        wide = max(0.6, 100 * count / total)
        wide = min(wide, 100 - at)
        drawn.append(
            Markup('<rect class="b-{}" x="{}" width="{}" height="6"/>').format(
                kind, f"{at:.2f}", f"{wide:.2f}"
            )
        )
        at += wide
    return Markup(
        '<svg class="progress" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="{}">'
        "{}</svg>"
    ).format(label, Markup("").join(drawn))

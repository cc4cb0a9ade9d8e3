"""Pages that are made from the package itself, so that they cannot lag behind it; none is committed."""

from __future__ import annotations

from typing import NamedTuple

from docsite.staging import Stage


class Made(NamedTuple):
    """A page for the sidebar: where it is in the site, and what it is called there."""

    place: str
    title: str


def write(stage: Stage) -> list[Made]:
    """Write all pages of the reference; those that the sidebar names, in order."""
    return []

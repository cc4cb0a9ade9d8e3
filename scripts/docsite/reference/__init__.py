"""Pages that are made from the package itself, so that they cannot lag behind it; none is committed."""

from __future__ import annotations

from typing import NamedTuple

from docsite.reference import commands, python_api, sql_functions
from docsite.staging import Stage


class Made(NamedTuple):
    """A page for the sidebar: where it is in the site, and what it is called there."""

    place: str
    title: str

    @property
    def document(self) -> str:
        """Its name as Sphinx has it."""
        return self.place.rpartition(".")[0]


def write(stage: Stage) -> list[Made]:
    """Write all pages of the reference; those that the sidebar names, in order."""
    return [
        Made(python_api.write(stage), "Python"),
        Made(commands.write(stage), "Command line"),
        Made(sql_functions.write(stage), "SQL functions"),
    ]

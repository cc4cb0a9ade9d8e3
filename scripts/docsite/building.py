"""Stages the site and runs Sphinx over it. A warning ends the build: what is written is then not kept."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from pathlib import Path

from docsite import navigation, reference
from docsite.navigation import Part
from docsite.staging import HOME, PROJECT, Stage, leaf, toctree

HERE = Path(__file__).resolve().parent
REFERENCE = "Reference"
"""The part of docs/README.md that the generated pages join."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class BuildFailed(Exception):
    """The site cannot be built; the message tells each thing that is wrong in a line of its own."""


def build(root: Path, output: Path) -> int:
    """Build the site of the checkout ``root`` into the folder ``output``; how many pages it has.

    Raises BuildFailed, and leaves ``output`` as it was then.
    """
    refuse_other(output)
    parts = navigation.read(root)
    refuse(navigation.complaints(root, parts))
    with tempfile.TemporaryDirectory(prefix="pgflow-site.") as scratch:
        stage = Stage(root, Path(scratch, "pages"))
        fill(stage, parts)
        refuse(stage.lost)
        made = Path(scratch, "html")
        refuse(_sphinx(stage.folder, made, Path(scratch, "doctrees"), root))
        replace(output, made)
    return len(list(output.rglob("*.html")))


def refuse(wrong: list[str]) -> None:
    """Raise BuildFailed if anything is wrong."""
    if wrong:
        raise BuildFailed("the site cannot be built\n  " + "\n  ".join(wrong))


def fill(stage: Stage, parts: list[Part]) -> None:
    """Write all pages of the site into its folder, ready for Sphinx."""
    trees = []
    for part in parts:
        leaves = []
        for group in part.groups:
            if group.title:
                leaves.append(f"{group.title} </{stage.group(part, group).removesuffix('.md')}>")
            else:
                leaves += [leaf(entry) for entry in group.entries]
        if part.title == REFERENCE:
            leaves += [f"{page.title} </{page.document}>" for page in reference.write(stage)]
            leaves.append("Index of names <genindex>")
        trees.append(toctree(leaves, caption=part.title, hidden=True))
    for path in (*navigation.pages(stage.root), *(path for path in PROJECT if path != HOME)):
        if (stage.root / path).is_file():
            stage.page(path)
    stage.page(HOME, toctree(["All pages <pages>"], hidden=True) + "".join(trees))
    stage.sources()


def _sphinx(source: Path, made: Path, doctrees: Path, root: Path) -> list[str]:
    """Run Sphinx; its warnings and errors, named by files of the repository."""
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    warnings = io.StringIO()
    try:
        with patch_docutils(HERE), docutils_namespace():
            application = Sphinx(source, HERE, made, doctrees, "html", status=None, warning=warnings)
            application.build()
    except SphinxError as error:
        return [*_named(warnings.getvalue(), source, root), f"Sphinx: {error}"]
    return _named(warnings.getvalue(), source, root)


def _named(told: str, source: Path, root: Path) -> list[str]:
    places = {(source / place).as_posix(): path for path, place in PROJECT.items()}
    told = _COLOURS.sub("", told)
    for place, path in places.items():
        told = told.replace(f"{place}:", f"{path}:")
    told = told.replace(f"{source.as_posix()}/", "docs/").replace(f"{root.as_posix()}/", "")
    return [line for line in told.splitlines() if line.strip()]


def replace(output: Path, made: Path) -> None:
    """Put what was made where it is wanted. Refuses a folder that holds something else than a site.

    Raises BuildFailed; what was there goes once the new site is whole beside it, where disks may be full.
    """
    refuse_other(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
            new, old = Path(beside, "new"), Path(beside, "old")
            shutil.move(made, new)
            if output.exists():
                output.rename(old)
            try:
                new.rename(output)
            except BaseException:
                if old.exists():
                    old.rename(output)
                raise
    except OSError as error:
        told = error.args[0][0][-1] if isinstance(error.args[0], list) else error  # of each file that is lost
        raise BuildFailed(f"{output} cannot be written: {told}") from None


def refuse_other(output: Path) -> None:
    """Raise BuildFailed if there is something else than a site."""
    if output.exists() and (
        not output.is_dir() or (any(output.iterdir()) and not (output / "searchindex.js").is_file())
    ):
        raise BuildFailed(f"{output} is there and is no site: give a folder that may be replaced")

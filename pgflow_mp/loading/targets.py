"""Where flows are: the text forms that name them, and the places that are looked at by default.

A target is ``module``, ``module:flow``, ``path.py``, ``path.py:flow``, ``__main__:flow``, a flow file or the
name of a bundled example. Parsing one imports nothing and needs no file to exist.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pgflow_mp import paths
from pgflow_mp.errors import ConfigError, FlowNotFound

FORMS: Final = "module:flow, module, path.py:flow, path.py, a flow file or the name of a bundled example"
DATA_ENDINGS: Final = (".json", ".yaml", ".yml")
"""Of flow files."""
_EXAMPLES: Final = Path(__file__).resolve().parents[1] / "examples"
_PREFIX: Final = "pgflow_mp.examples."


@dataclass(frozen=True, slots=True)
class Target:
    """A module or file that holds flows, and the one flow that is meant (None: all of them).

    ``module`` is a dotted name; ``file`` an absolute path. The module ``__main__`` comes with the file
    of its script. ``directory`` goes on sys.path before the import; ``source`` says where the target
    was configured: "argument", "PGFLOW_FLOWS", "examples", or the path of a pyproject.toml.
    ``str(target)`` is parsed back to the same target in any working directory, but for ``contents``, what a
    flow file said when it was read, and ``handlers``, what it may name.
    """

    module: str | None = None
    file: str | None = None
    flow: str | None = None
    directory: str | None = None
    source: str = "argument"
    contents: bytes | None = None
    handlers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, *, cwd: str | Path | None = None, source: str = "argument") -> Target:
        """Read a target's text form; relative paths start at ``cwd``. Raises FlowNotFound."""
        text = text.strip()
        base = Path(cwd or here())
        place, flow = text, None
        if match := re.fullmatch(r"(.*):([^:/\\]*)", text):
            place, flow = match[1], match[2] or None
        if not place:
            raise FlowNotFound(f"{text!r} names no module or file", hint=f"Forms: {FORMS}.")
        if place.startswith("<") and place.endswith(".json"):
            return cls(file=place, flow=flow, directory=os.path.abspath(base), source=source)
        if place.lower().endswith(DATA_ENDINGS):
            file = base / Path(place).expanduser()
            beside = os.path.abspath(base)
            return cls(file=os.path.abspath(file), flow=flow, directory=beside, source=source)
        if place.endswith(".py") or "/" in place or os.sep in place:
            file = base / Path(place).expanduser()
            return cls(file=os.path.abspath(file), flow=flow, source=source)
        if not all(part.isidentifier() for part in place.split(".")):
            raise FlowNotFound(f"{place!r} is neither a module nor a Python file", hint=f"Forms: {FORMS}.")
        if place == "__main__":
            return cls(module=place, flow=flow, source=source)
        directory = os.path.abspath(base)
        if place.startswith(_PREFIX):
            return cls(module=place, flow=flow, source=source)
        if example := _example(place, directory):
            return cls(module=_PREFIX + example[0], flow=flow or example[1], source=source)
        return cls(module=place, flow=flow, directory=directory, source=source)

    @property
    def main_path(self) -> str | None:
        """The script behind ``__main__``, for the process that has to run it again."""
        return self.file if self.module == "__main__" else None

    @property
    def is_data(self) -> bool:
        """Whether it is a flow file."""
        return self.module is None and self.file is not None and self.file.lower().endswith(DATA_ENDINGS)

    @property
    def by_path(self) -> dict[str, bytes]:
        """What a flow file said, if it was read, by its path."""
        return {} if self.contents is None else {self.file or "": self.contents}

    @property
    def bundled(self) -> bool:
        """Whether the flows are examples of this package."""
        return (self.module or "").startswith(_PREFIX)

    @property
    def sys_path(self) -> list[str]:
        """Directories that belong on sys.path where the target is loaded."""
        if self.file is not None and not self.is_data:
            where = (package_of(self.file)[0], package_of(os.path.realpath(self.file))[0])
            return list(dict.fromkeys(where))  # a script finds what is beside the file that a link leads to
        return [self.directory] if self.directory else []

    def __str__(self) -> str:
        place = self.module or self.file or ""
        return f"{place}:{self.flow}" if self.flow else place


def here() -> str:
    """The working directory. Raises ConfigError where it has been deleted: nothing can be started there."""
    if paths.is_gone():
        raise ConfigError("The working directory has been deleted", hint=paths.GONE)
    return os.getcwd()


def package_of(file: str) -> tuple[str, str]:
    """The directory to import ``file`` from, and its dotted name there: packages are followed upwards."""
    path = Path(file)
    parts = [] if path.name == "__init__.py" else [path.stem]
    directory = path.parent
    while (directory / "__init__.py").is_file() and directory.name.isidentifier():
        parts.insert(0, directory.name)
        directory = directory.parent
    return str(directory), ".".join(parts) or path.stem


def bundled_examples() -> list[str]:
    """Names of the bundled example modules."""
    return sorted(path.stem for path in _EXAMPLES.glob("*.py") if not path.stem.startswith("_"))


def resolve_app(
    positional: str | None, env: Mapping[str, str] | None = None, cwd: str | Path | None = None
) -> list[Target]:
    """The targets of an app: the argument, else pyproject.toml, else PGFLOW_FLOWS, else the examples.

    The nearest pyproject.toml is looked at from ``cwd`` upwards: ``[tool.pgflow_mp] flows`` is a target
    or a list of them, relative to that file. ``source`` of each target says which it was.
    Raises ConfigError or FlowNotFound.
    """
    base = Path(cwd or here()).absolute()
    if positional:
        return [Target.parse(positional, cwd=base)]
    for directory in (base, *base.parents):
        project = directory / "pyproject.toml"
        if project.is_file():
            if texts := _project_flows(project):
                return [Target.parse(text, cwd=directory, source=str(project)) for text in texts]
            break
    configured = (os.environ if env is None else env).get("PGFLOW_FLOWS", "")
    if texts := [text for text in re.split(r"[,\n]", configured) if text.strip()]:
        return [Target.parse(text, cwd=base, source="PGFLOW_FLOWS") for text in texts]
    return [Target(module=_PREFIX + name, source="examples") for name in bundled_examples()]


def _project_flows(project: Path) -> list[str]:
    import tomllib

    try:
        with project.open("rb") as file:
            settings: Any = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{project} cannot be read: {error}") from None
    flows = settings.get("tool", {}).get("pgflow_mp", {}).get("flows")
    if flows is None:
        return []
    texts = [flows] if isinstance(flows, str) else flows
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ConfigError(
            f"[tool.pgflow_mp] flows in {project} must be a target or a list of targets, not {flows!r}",
            hint='For example: flows = ["app.flows", "jobs/nightly.py:report"]',
        )
    return texts


def _example(name: str, directory: str) -> tuple[str, str | None] | None:
    """The bundled example called ``name``, unless the user has a module of that name."""
    if "." in name or _is_module(name, directory):
        return None
    if name in bundled_examples():
        return name, None
    pattern = re.compile(rf"\bFlow\(\s*[\"']{name}[\"']")
    for example in bundled_examples():
        if pattern.search((_EXAMPLES / f"{example}.py").read_text(encoding="utf-8")):
            return example, name
    return None


def _is_module(name: str, directory: str) -> bool:
    if (Path(directory) / f"{name}.py").is_file() or (Path(directory) / name).is_dir():
        return True
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False

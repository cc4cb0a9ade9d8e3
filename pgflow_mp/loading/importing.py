"""Importing a target's module, and saying in the user's terms why that did not work."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import os
import pkgutil
import re
import sys
import sysconfig
import traceback
import types
from pathlib import Path
from typing import Any, Final

from pgflow_mp import paths
from pgflow_mp.errors import FlowNotFound, PgflowError
from pgflow_mp.loading import reentry
from pgflow_mp.loading.targets import DATA_ENDINGS, Target, bundled_examples, here, package_of

FILE_PREFIX: Final = "pgflow_mp_file_"
"""Starts the names of modules that were loaded by path because their own name was taken."""
_HERE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARIES: Final = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))


def import_target(
    target: Target, main_path: str | None = None, *, may_be_main: bool = False
) -> types.ModuleType:
    """The module of a target, imported under the name that other modules would import it by.

    A file belongs to its package, or is a top-level module of its directory; only where that name is
    taken by another module does it get one of its own, or, if it ``may_be_main`` of this process, is run
    as that: processes that its functions start find it then. ``__main__`` is run again as ``__mp_main__``.
    Raises FlowNotFound, and lets PgflowError through with the place added to its hint.
    """
    if target.is_data:
        raise FlowNotFound(
            f"{target.file} is a flow file, and no module", hint="Name a Python file or module."
        )
    with reentry.importing(place_of(target)):
        return _import_target(target, main_path, may_be_main=may_be_main)


def _import_target(target: Target, main_path: str | None, *, may_be_main: bool) -> types.ModuleType:
    paths.extend(target.sys_path)
    try:
        if target.module == "__main__":
            return _import_main(main_path or target.main_path)
        if target.module is not None:
            return importlib.import_module(target.module)
        return _import_file(Path(target.file or ""), may_be_main=may_be_main)
    except PgflowError as error:
        if (where := _where(error)) and where.partition(":")[0] not in str(error):
            error.hint = f"{error.hint}\nDefined at {where}".lstrip()
        raise
    except ModuleNotFoundError as error:
        if target.module is not None and error.name and f"{target.module}.".startswith(f"{error.name}."):
            raise _no_module(target.module, error.name) from None
        raise FlowNotFound(
            f'{place_first(target)} needs the module "{error.name}", which is not installed here{_at(error)}',
            hint=f"This is Python {sys.version.split()[0]} at {sys.executable}.",
        ) from error
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise FlowNotFound(
            f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}",
            hint=f"The line is: {line}" if line else "",
        ) from error
    except (Exception, SystemExit) as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        raise FlowNotFound(f"Importing {place_of(target)} failed with {text}{_at(error)}") from error


def _import_main(path: str | None) -> types.ModuleType:
    """Run the script as ``__mp_main__``, and let it be this process's ``__main__``, like multiprocessing."""
    again = sys.modules.get("__mp_main__")
    if again is not None and again is not sys.modules.get("__main__"):
        return again
    main = sys.modules["__main__"]
    current = getattr(main, "__file__", None)
    if path is None or (current is not None and os.path.abspath(current) == os.path.abspath(path)):
        return main
    module = types.ModuleType("__mp_main__")  # a script has no __spec__
    module.__file__ = path
    code = _code_of(path)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    try:
        exec(code, module.__dict__)  # noqa: S102 - as the interpreter does with a script
    except BaseException:
        sys.modules["__main__"] = main
        del sys.modules["__mp_main__"]
        raise
    return module


def _code_of(path: str) -> types.CodeType:
    """The code of a script, or of the ``__main__`` of an archive that Python runs."""
    if not os.path.isfile(path) and os.path.isfile(archive := os.path.dirname(path)):
        importer: Any = pkgutil.get_importer(archive)
        code: types.CodeType = importer.get_code("__main__")
        return code
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _import_file(file: Path, *, may_be_main: bool) -> types.ModuleType:
    """Import by the name that other modules would use for the file, if it is free, else by one of ours."""
    if not file.is_file():
        raise no_file(file)
    if not os.access(file, os.R_OK):
        raise FlowNotFound(f"File {file} cannot be read: permission denied")
    name = package_of(str(file))[1]
    ours = f"{FILE_PREFIX}{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{_digest(file)}"
    for known in (name, ours):
        if (module := sys.modules.get(known)) is not None and _is_same(
            getattr(module, "__file__", None), file
        ):
            return module
    if all(part.isidentifier() for part in name.split(".")) and _is_same(_origin(name), file):
        return importlib.import_module(name)
    if may_be_main and getattr(sys.modules["__main__"], "__file__", None) is None:
        module = sys.modules[ours] = _import_main(str(file))
        return module
    spec = importlib.util.spec_from_file_location(ours, file)
    if spec is None or spec.loader is None:
        raise FlowNotFound(f"{file} is not a Python file", hint="Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[ours] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(ours, None)
        raise
    return module


def _origin(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return None if spec is None else spec.origin


def _is_same(origin: str | None, file: Path) -> bool:
    return origin is not None and os.path.exists(origin) and os.path.samefile(origin, file)


def _digest(file: Path) -> str:
    return hashlib.sha256(os.fsencode(file)).hexdigest()[:12]


def place_of(target: Target) -> str:
    """The target as a message names it."""
    return f"file {target.file}" if target.file else f'module "{target.module}"'


def place_first(target: Target) -> str:
    """The same where the message begins with it."""
    return f"File {target.file}" if target.file else f'Module "{target.module}"'


_ENDINGS: Final = f"Its name must end in .py, or in {', '.join(DATA_ENDINGS)}."


def _no_module(wanted: str, missing: str) -> FlowNotFound:
    message = f'There is no module "{missing}"' + (f' (of "{wanted}")' if wanted != missing else "")
    if os.path.isfile(wanted):
        return FlowNotFound(f"{wanted} is neither a Python file nor a flow file", hint=_ENDINGS)
    python_file = wanted.replace(".", os.sep) + ".py"
    for path in (python_file, *(wanted + ending for ending in DATA_ENDINGS)):
        if os.path.isfile(path):
            return FlowNotFound(message, hint=f"There is a file of that name: use {path}.")
    tops = [entry.stem for entry in Path(here()).glob("*.py")] + bundled_examples()
    import difflib

    close = difflib.get_close_matches(wanted, tops, 1)
    guess = f"Did you mean {close[0]}? " if close else ""
    return FlowNotFound(
        message,
        hint=f"{guess}Modules are looked for in {here()} and on sys.path; "
        f"bundled examples are {', '.join(bundled_examples()) or 'none'}.",
    )


def no_file(file: Path) -> FlowNotFound:
    """The error about a file that is not there, with what may be meant."""
    if file.is_dir():
        return FlowNotFound(
            f"{file} is a directory", hint="Name a Python file in it, or a package by its dots."
        )
    if file.with_suffix(".py").is_file():
        return FlowNotFound(f"There is no file {file}", hint=f"Did you mean {file.with_suffix('.py')}?")
    if not file.parent.is_dir():
        return FlowNotFound(f"There is no file {file}", hint=f"There is no directory {file.parent} either.")
    import difflib

    endings = (".py", *DATA_ENDINGS)
    there = [path.name for path in file.parent.iterdir() if path.name.endswith(endings)]
    close = difflib.get_close_matches(file.name, there, 1)
    others = f"Files there: {', '.join(sorted(there)[:5])}." if there else "No flow is in that directory."
    return FlowNotFound(f"There is no file {file}", hint=f"Did you mean {close[0]}?" if close else others)


def _at(error: BaseException) -> str:
    where = _where(error)
    return f" (at {where})" if where else ""


def _where(error: BaseException) -> str:
    """``file, line N: code`` of the user's line that led to the error, else of the innermost one."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    frames = [place for place in frames if not place[0].startswith((_HERE, "<"))]
    if not frames:
        return ""
    own = [place for place in frames if not place[0].startswith(_LIBRARIES)]
    file, line = (own or frames)[-1]
    code = linecache.getline(file, line).strip()
    return f"{file}, line {line}" + (f": {code}" if code else "")

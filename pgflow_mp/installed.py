"""How what is lacking is installed beside this package, wherever that itself came from."""

from __future__ import annotations

import os

_PLACE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def pip_install(extra: str, *options: str, place: str = _PLACE) -> str:
    """The command that installs an extra: of the checkout in which the package lies, else of the package.

    From an index it is installed once it was released there; a checkout is installed as it is (``-e``).
    """
    is_checkout = os.path.isfile(os.path.join(place, "pyproject.toml"))
    what = ("-e", f"'{place}[{extra}]'") if is_checkout else (f"'pgflow-mp[{extra}]'",)
    return " ".join(("pip install", *options, *what))

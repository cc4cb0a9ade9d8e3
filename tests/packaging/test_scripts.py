"""The scripts say on a line what they lack, and what they cannot do where they are asked to."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").glob("*.py") if not path.name.startswith("_"))


def said(*words: str, python: tuple[str, ...] = ()) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *python, *words], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def test_a_script_without_its_packages_names_what_installs_them() -> None:
    def bare(script: Path) -> tuple[int, str]:
        return said(str(script), "--help", python=("-S", "-E"))  # nothing but Python's own library

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip([script.name for script in SCRIPTS], pool.map(bare, SCRIPTS), strict=True))
    assert not [name for name, (_, text) in found.items() if "Traceback" in text]
    assert found["lock.py"] == found["release.py"]
    assert found["lock.py"] == (1, f"packaging is not installed: pip install -e '{ROOT}[dev]'\n")


def test_the_lock_without_uv_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import lock

    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "uv", raising=False)
    with pytest.raises(SystemExit, match="uv is not installed: pip install uv"):
        lock.write(upgrade=False)


@pytest.mark.parametrize(
    ("script", "option"), [("make_pictures.py", "--output"), ("measure_scale.py", "--json")]
)
def test_what_cannot_be_written_is_said_before_any_work(script: str, option: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" if option == "--output" else tmp_path
    code, text = said(str(ROOT / "scripts" / script), option, str(place))
    assert code == 2
    assert f"error: {option} {place}" in text

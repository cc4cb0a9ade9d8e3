"""Archives that are not what the checkout says are told file by file."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import _distributions
import pytest

from pgflow_mp import __version__

INFO = f"pgflow_mp-{__version__}.dist-info/"
METADATA = f"""Metadata-Version: 2.4
Name: pgflow-mp
Version: {__version__}
Summary: Durable work
Author: Somebody
License-Expression: Apache-2.0
License-File: LICENSE
Classifier: Programming Language :: Python :: 3.11
Requires-Python: >=3.11
Description-Content-Type: text/markdown

# pgflow_mp
""".encode()
Contents = dict[str, bytes]
ROOT = _distributions.ROOT


@pytest.fixture(autouse=True)
def uncompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives as they are made here, to save time."""
    monkeypatch.setitem(_distributions.LIMITS, ".whl", 10.0)


@pytest.fixture(scope="module")
def good() -> Contents:
    """What the wheel should have in it."""
    found = {
        INFO + "METADATA": METADATA,
        INFO + "WHEEL": b"Wheel-Version: 1.0",
        INFO + "RECORD": b"",
        INFO + "entry_points.txt": b"[console_scripts]\npgflow-mp = pgflow_mp.cli.main:main\n",
        INFO + "licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    for folder, place in (("pgflow_mp", "pgflow_mp"), ("sql", "pgflow_mp/_sql")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found[f"{place}/{path.relative_to(ROOT / folder).as_posix()}"] = path.read_bytes()
    return found


def wheel_of(contents: Mapping[str, bytes], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"pgflow_mp-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def test_a_wheel_of_the_checkout_is_complete(good: Contents, tmp_path: Path) -> None:
    assert list(_distributions.problems_of_wheel(wheel_of(good, tmp_path))) == []


def test_everything_that_is_wrong_with_a_wheel_is_said(good: Contents, tmp_path: Path) -> None:
    spawn, name = "functions/0200_spawn.sql", "pgflow_mp/runner.py"
    missing = {
        "pgflow_mp/py.typed",
        "pgflow_mp/web/assets/page.css",
        "pgflow_mp/_sql/functions/0100_helpers.sql",
    }
    assert missing <= good.keys()
    extra = [
        "tests/test_x.py",
        f"sql/{spawn}",
        "pgflow_mp/notes.txt",
        "pgflow_mp/__pycache__/runner.cpython-311.pyc",
    ]
    wrong = {name: data for name, data in good.items() if name not in missing}
    wrong |= dict.fromkeys([*extra, f"{INFO}direct_url.json", name, f"pgflow_mp/_sql/{spawn}"], b"pass")
    wrong |= {INFO + "licenses/LICENSE": b"MIT", INFO + "entry_points.txt": b"pgflow-mp = old:main"}
    lines = METADATA.replace(b">=3.11", b">=3.12").replace(b"text/markdown", b"text/plain").splitlines(True)
    wrong[INFO + "METADATA"] = b"".join(
        line for line in lines if not line.startswith((b"Sum", b"#", b"License-F"))
    )
    assert sorted(_distributions.problems_of_wheel(wheel_of(wrong, tmp_path))) == sorted(
        [
            *(f"{each} is missing" for each in missing),
            *(f"{each} does not belong there" for each in [*extra, f"{INFO}direct_url.json"]),
            f"{name} differs from {name}",
            f"pgflow_mp/_sql/{spawn} differs from sql/{spawn}",
            "the licence is another one",
            "the command pgflow-mp is missing",
            "the metadata has no Summary",
            "the metadata has no Description",
            "the metadata names no License-File",
            "no classifier names Python 3.12, which Requires-Python does",
            "the description is not said to be Markdown",
        ]
    )


def test_what_a_wheel_lacks_beside_the_package_is_said(good: Contents, tmp_path: Path) -> None:
    bare = {name: data for name, data in good.items() if not name.startswith(INFO)}
    assert list(_distributions.problems_of_wheel(wheel_of(bare, tmp_path))) == [
        f"{INFO}{name} is missing" for name in sorted(_distributions.META)
    ]


def test_a_wheel_that_has_grown_is_said(
    good: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_distributions.LIMITS, ".whl", 0.1)
    (found,) = _distributions.problems_of_wheel(wheel_of(good, tmp_path))
    assert "0.1 at most" in found


def test_two_wheels_that_differ_are_told_by_file(good: Contents, tmp_path: Path) -> None:
    name = "pgflow_mp/runner.py"
    one, same = wheel_of(good, tmp_path / "one"), wheel_of(good, tmp_path / "same")
    other = wheel_of({**good, name: b"pass"}, tmp_path / "other")
    turned = wheel_of(dict(reversed(good.items())), tmp_path / "turned")
    assert list(_distributions.differences(one, same)) == []
    assert [each.split()[0] for each in _distributions.differences(one, other)] == [name]
    assert list(_distributions.differences(one, turned)) == [
        "the wheel of the sdist has the same files, but is another archive"
    ]


def test_an_sdist_lacks_nothing_but_what_is_of_the_repository(tmp_path: Path) -> None:
    top = f"pgflow_mp-{__version__}"
    path = tmp_path / f"{top}.tar.gz"
    contents = {"PKG-INFO": METADATA, "local-notes.txt": b""}
    for name in _distributions._sources():
        if name != "SECURITY.md":
            contents[name] = (ROOT / name).read_bytes()
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    found = list(_distributions.problems_of_sdist(path))
    expected = ["SECURITY.md is missing", "local-notes.txt does not belong there"]
    listed = [name for name in _distributions._sources() if name.startswith(_distributions.NOT_IN_SDIST)]
    assert found == [expected[0], *(f"{name} does not belong there" for name in [*listed, "local-notes.txt"])]

"""Artifacts: what is stored, how it comes back, and what is refused. Runs with a database: tests/cli."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from artifact_flows import pictures

from pgflow_mp import Artifact, ArtifactError, Context, Flow, FlowDefinitionError, PermanentError
from pgflow_mp.errors import ConfigError
from pgflow_mp.flows.context import Runtime
from pgflow_mp.testing import run_inline
from pgflow_mp.values import artifacts, stores
from pgflow_mp.values.artifacts import ArtifactFile, Roots
from pgflow_mp.values.outputs import encode_output
from pgflow_mp.values.reading import decoder
from pgflow_mp.worker.settings import WorkerSettings

RUN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    runtime = Runtime(artifacts=Roots(str(tmp_path), installation="id"))
    yield Context(run_id=RUN, flow_slug="flow", runtime=runtime).enter()
    artifacts.leave()


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_it_is_stored_by_its_content_in_a_folder_of_the_run(ctx: Context, tmp_path: Path) -> None:
    made = Artifact.from_bytes(b"abc", "model.bin")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    where = f"id/flow/{RUN}/{sha256}/model.bin"
    assert json.loads(encode_output(made)) == {
        "url": str(tmp_path / where),
        "name": "model.bin",
        "size": 3,
        "sha256": sha256,
        "media_type": "application/octet-stream",
    }
    assert below(tmp_path) == [where]
    assert Artifact.from_bytes(memoryview(b"abc"), "model.bin") == made
    assert below(tmp_path) == [where]
    back = decoder(list[Artifact | None])(encode_output([made, None]))[0]
    assert (back, back.read(), back.path.read_bytes()) == (made, b"abc", b"abc")
    with back.open() as file:
        assert file.read(2) == b"ab"
    assert Artifact.from_bytes(b"<svg/>", "x.svg").media_type == "image/svg+xml"
    assert Artifact.from_bytes(b"", "x.svg", media_type="text/plain").media_type == "text/plain"


def test_a_file_may_be_gone_once_it_is_stored(ctx: Context, tmp_path: Path) -> None:
    source = tmp_path / "a b é#?.txt"
    source.write_bytes(b"x" * 3_000_000)
    made, named = Artifact.from_file(source), Artifact.from_file(str(source), "other name:1.csv.gz")
    source.unlink()
    assert made.read() == named.read() == b"x" * 3_000_000
    assert (made.name, named.name) == ("a b é#?.txt", "other name:1.csv.gz")
    assert named.path.name == "other name_1.csv.gz"
    with pytest.raises(FileNotFoundError):
        Artifact.from_file(source)


def test_a_block_that_fails_leaves_nothing(ctx: Context, tmp_path: Path) -> None:
    made: list[ArtifactFile] = []

    def fails() -> None:
        with ctx.artifact("x.bin") as file:
            made.append(file)
            file.write(b"abc")
            raise FileNotFoundError("of the block")

    with pytest.raises(FileNotFoundError, match="of the block"):
        fails()
    with pytest.raises(ArtifactError, match="return it after that"):
        _ = made[0].artifact
    assert below(tmp_path) == []
    with ctx.artifact("x.png") as file:
        file.write(b"0123456789")
        file.seek(3)
        file.write(b"x")
        assert str(file.name).endswith(".x.png")
    assert file.artifact.read() == b"012x456789"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\0b", "a\nb", "x" * 201, "\ud800", 5])
def test_names_that_no_file_can_have_are_refused(name: Any, ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        Artifact.from_bytes(b"", name)
    assert below(tmp_path) == []


def test_what_is_gone_or_damaged_is_told(ctx: Context) -> None:
    made = Artifact.from_bytes(b"abc", "model.bin")
    Path(made.url).write_bytes(b"abX")
    with pytest.raises(ArtifactError, match="is not what was stored"):
        made.read()
    Path(made.url).unlink()
    for use in (made.read, made.open, lambda: made.path):
        with pytest.raises(ArtifactError, match="There is no artifact") as caught:
            use()
        assert "several machines" in caught.value.hint


def test_where_nothing_can_be_stored_it_says_so(ctx: Context, tmp_path: Path) -> None:
    artifacts.leave()
    with pytest.raises(PermanentError, match="Artifacts are made in handlers"):
        Artifact.from_bytes(b"", "x")
    Context(run_id=RUN, flow_slug="flow").enter()
    with pytest.raises(PermanentError, match="no place for artifacts") as caught:
        Artifact.from_bytes(b"", "x")
    assert "--artifacts" in caught.value.hint
    (tmp_path / "id").write_text("a file")
    with pytest.raises(ArtifactError, match=r"cannot be stored in .*: (Not a directory|File exists)"):
        ctx.enter() and Artifact.from_bytes(b"", "x")


def test_threads_and_processes_of_a_handler_make_them_for_its_item(ctx: Context, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(Artifact.from_bytes, b"abc", "x").result()
    assert RUN in made.url
    process = multiprocessing.get_context("fork").Process(target=Artifact.from_bytes, args=(b"x", "y"))
    process.start()
    process.join(10)
    assert process.exitcode == 0
    assert len(below(tmp_path)) == 2
    other = Context(run_id=RUN.replace("1", "2"), flow_slug="flow", runtime=ctx.runtime)
    entered, done = threading.Event(), threading.Event()

    def elsewhere() -> None:
        other.enter()
        entered.set()
        done.wait(10)
        artifacts.leave()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert entered.wait(10)
    with ThreadPoolExecutor(1) as pool, pytest.raises(PermanentError, match="here none runs"):
        pool.submit(Artifact.from_bytes, b"abc", "x").result()
    assert RUN in Artifact.from_bytes(b"abc", "x").url
    done.set()
    thread.join(10)


def test_a_flow_that_is_run_inline_keeps_them_until_the_process_ends() -> None:
    assert run_inline(pictures, [1, 2, 3]) == {"total": 48}


def test_an_object_store_has_the_same(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.get_filesystem_class("memory")

    class Whole(memory):  # type: ignore[misc, valid-type]
        """Stands for stores in which an object is there whole or not at all."""

        protocol = "s3"
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def mv(self, *_: Any, **__: Any) -> None:
            raise AssertionError("an object was moved")

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + str(path).removeprefix("s3://").strip("/") if str(path).strip("/") else ""

    fsspec.register_implementation("s3", Whole, clobber=True)
    for root in ("memory://bucket/a", "s3://bucket/a"):
        runtime = Runtime(artifacts=Roots(root, installation="id"))
        with Context(run_id=RUN, flow_slug="flow", runtime=runtime).enter().artifact("a?b.bin") as file:
            file.write(b"abc")
        made = file.artifact
        again = Artifact.from_bytes(b"abc", "a?b.bin")
        assert made == again
        assert made.url == f"{root}/id/flow/{RUN}/{made.sha256}/a_b.bin"
        assert (made.read(), made.path.read_bytes(), made.path.name) == (b"abc", b"abc", "a_b.bin")
        folders = stores.Folders(root, "id")
        assert (folders.exist(), folders.flows(), folders.runs("flow")) == (True, ["flow"], {RUN: [RUN]})
        assert folders.remove("flow", folders.set_aside("flow", RUN)) == (0, 1, 3)
        assert folders.runs("flow") == {}
        with pytest.raises(ArtifactError, match="There is no artifact"):
            made.read()
        artifacts.leave()


def test_folders_of_runs_and_nothing_else_are_found_set_aside_and_put_back(
    ctx: Context, tmp_path: Path
) -> None:
    made = Artifact.from_bytes(b"abc", "x")
    base = tmp_path / "id" / "flow"
    (base / "notes").mkdir()
    (base / "file").write_text("")
    os.symlink("/etc", base / RUN.replace("1", "2"))
    folders = stores.Folders(str(tmp_path), "id")
    assert folders.runs("flow") == {RUN: [RUN]}
    aside = folders.set_aside("flow", RUN)
    assert not os.path.exists(made.url)
    assert folders.runs("flow") == {RUN: [aside]}
    new = Artifact.from_bytes(b"new", "y")
    folders.put_back("flow", aside)
    assert (made.read(), new.read(), folders.runs("flow")) == (b"abc", b"new", {RUN: [RUN]})
    assert stores.Folders(str(tmp_path / "none"), "id").flows() == []


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("", "is not a place for artifacts"),
        ("simplecache::s3://x", "is not a place for artifacts"),
        ("sftp://host/x?y", "is not a place for artifacts"),
        ("sftp://me:secret@host/x", "has a password in it"),
    ],
)
def test_a_place_that_cannot_be_one_is_refused_where_it_is_given(root: str, words: str) -> None:
    with pytest.raises(FlowDefinitionError, match=f'artifacts of Flow "f": .*{words}'):
        Flow("f", artifacts=root)
    with pytest.raises(ConfigError, match=words) as caught:
        WorkerSettings(dsn="", targets=("x",), artifacts=root)
    assert "secret" not in str(caught.value)
    with pytest.raises(FlowDefinitionError, match="must be a folder or a URL, not int"):
        Flow("f", artifacts=5)  # type: ignore[arg-type]


def test_no_place_leads_a_removal_to_folders_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs" / "other id"
    (theirs / "flow" / RUN).mkdir(parents=True)
    os.symlink(tmp_path / "theirs", tmp_path / "ours")
    os.symlink(theirs, tmp_path / "theirs" / "id")
    monkeypatch.chdir(tmp_path)
    for root in ("theirs", ".", "/a/../b", str(tmp_path / "ours"), "sftp://host/theirs?x=", "a::file:///b"):
        with pytest.raises(
            (ArtifactError, ConfigError), match=r"is not a place for artifacts|leads to another"
        ):
            stores.Folders(root, "id")
    os.unlink(tmp_path / "theirs" / "id")
    os.rename(theirs, tmp_path / "theirs" / "id")
    assert stores.Folders(str(tmp_path / "ours"), "id").runs("flow") == {RUN: [RUN]}


def test_a_place_is_an_absolute_path_or_a_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/x")
    assert Flow("f", artifacts=Path("a")).artifacts == f"{tmp_path}/a"
    assert Flow("f", artifacts="~/a").artifacts == "/home/x/a"
    assert Flow("f", artifacts="file:///a/b").artifacts == "/a/b"
    assert Flow("f", artifacts="s3://bucket/a/").artifacts == "s3://bucket/a"
    assert Flow("f").artifacts is None


def test_types_that_hold_artifacts_are_known() -> None:
    class Inside(Context):
        made: list[Artifact | None] | None = None

    held: list[Any] = [Artifact, list[Artifact], dict[str, Artifact | None], Inside, tuple[int, Inside]]
    others: list[Any] = [int, list[int], Context, None, Any, "Artifact", Path]
    assert [artifacts.mentions(annotation) for annotation in (*held, *others)] == [True] * 5 + [False] * 7


def test_a_writer_that_is_killed_at_any_moment_leaves_no_half_file_by_its_final_name(
    ctx: Context, tmp_path: Path
) -> None:
    def write() -> None:
        for number in range(100_000):
            Artifact.from_bytes(os.urandom(200_000), f"{number}.bin")

    for moment in range(10):
        process = multiprocessing.get_context("fork").Process(target=write)
        process.start()
        time.sleep(0.02 + 0.007 * moment)
        process.kill()
        process.join(10)
    run = tmp_path / "id" / "flow" / RUN
    finished = [path for path in run.rglob("*.bin") if path.parent != run]
    assert finished
    assert [
        path for path in finished if hashlib.sha256(path.read_bytes()).hexdigest() != path.parent.name
    ] == []
    folders = stores.Folders(str(tmp_path), "id")
    folders.remove("flow", folders.set_aside("flow", RUN))
    assert below(tmp_path) == []

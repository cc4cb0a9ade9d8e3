"""Flow files: what they describe is a Flow like one in Python, and what is wrong is said with its line."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import data_handlers
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow_mp import Flow
from pgflow_mp.errors import (
    ConfigError,
    FlowDefinitionError,
    FlowFileError,
    FlowNotFound,
    PgflowError,
)
from pgflow_mp.flows.file_format import FLOW_KEYS, KINDS, STEP_KEYS
from pgflow_mp.flows.options import names
from pgflow_mp.installed import pip_install
from pgflow_mp.loading import finding, flow_files, job_functions
from pgflow_mp.loading.targets import Target
from pgflow_mp.testing import run_inline

LIST = ("data_handlers",)
WORDS = """\
slug: words
max_attempts: 2
steps:
  - slug: split
    kind: array
    handler: data_handlers:split
  - slug: length
    kind: map
    over: split
    handler: data_handlers:length
    timeout: 30
    tolerate: 0.5
  - slug: total
    depends_on: [length]
    handler: data_handlers:total
    when: {length: [1]}
"""


def in_python() -> Flow:
    flow = Flow("words", max_attempts=2)
    flow.array("split", data_handlers.split)
    flow.map("length", data_handlers.length, over="split", timeout=30, tolerate=0.5)
    flow.step("total", data_handlers.total, depends_on=["length"], when={"length": [1]})
    return flow


def file_of(folder: Path, text: str | bytes, name: str = "flow.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_file_is_the_same_flow_as_in_python(tmp_path: Path) -> None:
    wanted = in_python()
    texts = {"a.yaml": WORDS, "a.yml": "\ufeff" + WORDS.replace("\n", "\r\n"), "a.json": wanted.to_json()}
    for name, text in texts.items():
        flow = Flow.from_file(file_of(tmp_path, text, name), handlers=LIST)
        assert dict(flow.steps) == dict(wanted.steps)
        assert (flow.slug, flow.options, flow.shape()) == (wanted.slug, wanted.options, wanted.shape())
        assert flow.to_sql() == wanted.to_sql()
        assert run_inline(flow, "a bb ccc") == {"total": 6}


def test_a_flow_file_is_a_target(tmp_path: Path) -> None:
    path = file_of(tmp_path, WORDS)
    target = Target.parse("flow.yaml:words", cwd=tmp_path)
    assert (target.file, target.flow, target.is_data) == (str(path), "words", True)
    assert Target.parse(str(target)).file == str(path)
    loaded = flow_files.with_contents(target, LIST)
    path.write_text("gone: {")
    (flow,) = finding.load_flows(loaded)  # by what it said
    assert dict(flow.steps) == dict(in_python().steps)
    path.write_text(WORDS)
    with pytest.raises(FlowNotFound, match='has no flow "word"'):
        finding.load_flows(flow_files.with_contents(Target.parse("flow.yaml:word", cwd=tmp_path), LIST))
    file_of(tmp_path, "slug: none\nsteps: []\n")
    with pytest.raises(FlowDefinitionError, match="has no steps"):
        finding.load_flows(Target.parse("flow.yaml", cwd=tmp_path))


S = "slug: words\nsteps:\n"
H = "    handler: data_handlers:length\n"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (S + "  - slug: a\n    handler: os:system\n", 4, "not on the list"),
        (S + "  - slug: a\n    handler: data_handlers:lenght\n", 4, 'has no "lenght"'),
        (S + "  - slug: a\n", 3, 'Handler of step "a" of flow "words" must be an import path, not nothing'),
        (S + "  - slug: a\n    kind: map\n" + H + "    timeout: 2\n", 6, "timeout must be greater than"),
        (S + "  - slug: a\n    kind: map\n" + H + "    timeuot: 9\n", 6, 'Map "a" has no option "timeuot"'),
        (S + "  - slug: a\n    tolerate: 1\n" + H, 4, 'Step "a" has no option "tolerate"'),
        (S + "  - slug: rate\n    rate: 9\n    limt: 9\n" + H, 5, 'Step "rate" has no option "limt"'),
        (S + "  - slug: when\n    when: {}\n    unless: [1]\n" + H, 5, 'unless of step "when"'),
        (S + "  - slug: a\n    kind: map\n    requires: [1]\n" + H, 5, "requires of step"),
        (S + "  - slug: a\n    kind: map\n    tolerate: x\n" + H, 5, "tolerate of step"),
        (S + "  - slug: a\n    kind: map\n    storage: x\n" + H, 5, "storage of step"),
        (S + "  - slug: a\n    kind: map\n    barrier: 1\n" + H, 5, "barrier of step"),
        (S + "  - slug: a\n    kind: map\n    burst: 2\n" + H, 5, "burst of step"),
        (S + "  - slug: a\n    nan: never\n" + H, 4, "nan of step"),
        (S + "  - slug: a-b\n" + H, 3, "can only contain letters"),
        (S + "  - slug: 3\n" + H, 3, "Slug must be a string, not int"),
        (S + "  - slug: a\n    depends_on: b\n" + H, 3, 'depends on undefined step "b"'),
        (S + "  - slug: a\n    depends_on: [1]\n" + H, 4, "must be a slug, or a list of slugs"),
        (S + "  - slug: a\n    kind: map\n    over: [a]\n" + H, 5, 'over of step "a" of flow "words" must'),
        (S + "  - slug: a\n    kind: mop\n" + H, 4, 'kind of step "a" of flow "words" must be one of'),
        (S + "  - slug: a\n    when: [1]\n" + H, 4, 'when of step "a"'),
        (
            S + "  - slug: a\n    rate: fast\n" + H,
            4,
            'rate of step "a" of flow "words": \'fast\' is not a rate',
        ),
        (S + "  - slug: a\n    when_unmet: maybe\n" + H, 4, "when_unmet of step"),
        (S + "  - slug: a\n" + H + "  - slug: A\n" + H, 5, "conflict case-insensitively"),
        (S + "  - slug: a\n" + H + "  - slug: a\n" + H, 5, 'Step "a" already exists'),
        (S + "  - slug: a\n    handler: data_handlers:greet\n", 4, "can never be supplied"),
        (S + "  - a\n", 3, 'steps[0] of flow "words" must be an object, not a text'),
        ("slug: words\nsteps: {a: 1}\n", 2, "steps of a flow must be a list, not an object"),
        ("slug: words\n", 1, 'Flow "words" has no steps'),
        ("steps: []\n", 1, "A flow has no slug"),
        ("slug: words\nretries: 3\nsteps: []\n", 2, 'has no option "retries"'),
        ("slug: words\ntimeout: 1\nsteps: []\n", 2, "timeout must be greater than or equal to 3"),
        ("slug: words\nqueues: two\nsteps: []\n", 2, 'queues of flow "words" must be'),
        ("slug: words\nversion: 2\nsteps: []\n", 2, "A flow of version 2 cannot be read"),
        ("slug: words\non_start: {}\nsteps: []\n", 2, "on_start of a flow must be a list"),
        ("slug: words\non_start: [{handler: os:nice}]\nsteps: []\n", 2, "os:nice, which is not on the list"),
        (
            "slug: words\non_start:\n- {name: ctx, handler: data_handlers:greeting}\nsteps: []\n",
            3,
            "something",
        ),
        ("[]", 1, "A flow must be an object, not a list"),
        ("", None, "is empty"),
        ("# nothing\n", None, "A flow must be an object, not nothing"),
        ("slug: a\nslug: b\n", 2, "has the key 'slug' twice"),
        (b"slug: a\n# caf\xe9\n", 2, "it is not UTF-8 (byte 0xe9)"),
        (WORDS.encode("utf-16"), None, "is UTF-16"),
        (b"\x1f\x8b\x08\x00", None, "is gzip data"),
        ("slug: a\nwhen: \0", None, "no YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    text: str | bytes, line: int | None, what: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(FlowFileError if 'has no "len' not in what else FlowNotFound) as caught:
        finding.load_flows(flow_files.with_contents(Target.parse(str(path)), LIST))
    assert str(caught.value).startswith(f"{path}, line {line}: " if line else f"{path}")
    assert what in str(caught.value)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) + len(caught.value.hint) < 1000


def test_json_has_lines_too(tmp_path: Path) -> None:
    data = {"slug": "a", "steps": [{"handler": "data_handlers:length"}, {"handler": "os:system"}]}
    path = file_of(tmp_path, json.dumps(data, indent=1), "flow.json")
    with pytest.raises(FlowFileError, match=r"flow.json, line 8: Handler of steps\[1\] of flow \"a\""):
        Flow.from_file(path, handlers=LIST)
    file_of(tmp_path, '{"slug": NaN}', "flow.json")
    with pytest.raises(FlowFileError, match=r"flow.json, line 1: NaN is no JSON"):
        Flow.from_file(path)


def test_nothing_is_imported_where_a_later_handler_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_first.py").write_text("def f(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = S + "  - handler: imported_first:f\n  - handler: os:system\n"
    with pytest.raises(FlowFileError, match="os:system"):
        Flow.from_file(file_of(tmp_path, text), handlers=["imported_first"])
    assert "imported_first" not in sys.modules


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(FlowFileError, match="is not a file"):
        Flow.from_file(tmp_path / "pipe.yaml")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(FlowNotFound, match="is a directory"):
        Flow.from_file(tmp_path / "folder.json")
    file_of(tmp_path, WORDS, "flow.yaml")
    with pytest.raises(FlowNotFound, match="There is no file") as caught:
        Flow.from_file(tmp_path / "flow.yml")
    assert "flow.yaml" in caught.value.hint
    with pytest.raises(FlowNotFound, match="is not a flow file"):
        Flow.from_file(tmp_path / "flow.txt")
    with pytest.raises(FlowNotFound, match="cannot be read"):
        Flow.from_file(tmp_path / ("a" * 300 + ".json"))
    with open(tmp_path / "huge.json", "wb") as huge:
        huge.truncate(1 << 40)
    with pytest.raises(FlowFileError, match="more than 4 MiB"):
        Flow.from_file(tmp_path / "huge.json")
    with pytest.raises(ConfigError, match="cannot be on the list"):
        Flow.from_file(tmp_path / "flow.yaml", handlers=["os/system"])


def test_what_is_near_to_a_flow_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = file_of(tmp_path, WORDS, "Near.YAML")
    assert Flow.from_file("Near.YAML", handlers=LIST).slug == "words"
    path.rename("near.yaml")
    with pytest.raises(FlowNotFound, match='There is no module "near"') as caught:
        finding.load_flows("near")
    assert caught.value.hint == "There is a file of that name: use near.yaml."
    file_of(tmp_path, WORDS, "near.toml")
    with pytest.raises(FlowNotFound, match=r"near\.toml is neither a Python file nor a flow file"):
        finding.load_flows("near.toml")


def test_a_flow_file_is_never_executed(tmp_path: Path) -> None:
    """As the module of a function for jobs it would be: this one is valid Python."""
    path = file_of(tmp_path, f"slug: open({str(tmp_path / 'made')!r}, 'w')\nsteps: []\n")
    with pytest.raises(FlowNotFound, match="is a flow file, and no module"):
        job_functions.load(f"{path}:steps", None)
    assert not (tmp_path / "made").exists()


def test_without_pyyaml_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="PyYAML is not installed") as caught:
        Flow.from_file(file_of(tmp_path, WORDS), handlers=LIST)
    assert pip_install("yaml") in caught.value.hint


class Step(msgspec.Struct):
    handler: Any
    kind: str = "step"


@dataclass
class Shape:
    slug: str
    steps: list[Step] = field(default_factory=list)


def test_structs_and_functions_describe_a_flow_too() -> None:
    flow = Flow.from_shape(Shape("a", [Step(data_handlers.length, "map")]))  # type: ignore[arg-type]
    assert flow.steps["length"].handler is data_handlers.length
    assert (flow.module, flow.file) == (__name__, __file__)
    with pytest.raises(FlowDefinitionError, match=r"steps\[0\].slug is a type, which JSON does not have"):
        Flow.from_shape({"slug": "a", "steps": [{"slug": int, "handler": data_handlers.length}]})


def cyclic() -> dict[str, Any]:
    steps: list[Any] = []
    steps.append(steps)
    return {"slug": "a", "steps": steps}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (cyclic(), "nested more than 100 levels deep"),
        ({"slug": "a", "steps": [], "rate": float("nan")}, "rate is nan, which JSON does not have"),
        ({"slug": "a", "steps": [], 1: 2}, "has the key 1, which is not a text"),
        ({"slug": "\ud800", "steps": []}, "half of a surrogate pair"),
        ({"slug": "a", "steps": [{"handler": b"os:system"}]}, "is a bytes, which JSON does not have"),
        ({"slug": "a", "steps": [{"handler": "os:system"}]}, "not on the list"),
        (None, "must be an object, not nothing"),
        ("words.yaml", "must be an object, not a text"),
    ],
)
def test_data_that_is_refused(data: Any, what: str) -> None:
    with pytest.raises(FlowDefinitionError, match=what.replace("[", r"\[")):
        Flow.from_shape(data, handlers=LIST)


def test_other_processes_make_the_same_flow_of_it(tmp_path: Path) -> None:
    path = file_of(tmp_path, WORDS)
    flow = Flow.from_file(path, handlers="data_handlers")
    path.unlink()
    flow.step("last", data_handlers.anything, depends_on="total")
    target = finding.target_for(flow)
    assert target.handlers == (
        *("data_handlers:split", "data_handlers:length", "data_handlers:total", "data_handlers:anything"),
    )
    text = str(target)
    again = Target.parse(text, cwd="/")
    assert (str(again), again.is_data) == (text, True)
    (found,) = finding.load_flows(target)
    assert dict(found.steps) == dict(flow.steps)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.sampled_from(["a", "b", "", "map", "fail", "skip", "data_handlers:anything", "os:system", "1/s"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(FLOW_KEYS), anything, max_size=4),
    st.lists(
        st.dictionaries(
            st.sampled_from([*STEP_KEYS, *(name for kind in KINDS for name in names(kind))]),
            anything,
            max_size=5,
        ).map(lambda step: {"handler": "data_handlers:anything", **step}),
        max_size=3,
    ),
)
def test_whatever_is_in_a_file_is_a_flow_or_an_error_of_ours(
    flow: dict[str, Any], steps: list[dict[str, Any]]
) -> None:
    try:
        made = Flow.from_shape({"slug": "a", "steps": steps, **flow}, handlers=LIST)
    except PgflowError as error:
        str(error).encode()
        return
    made.to_sql()
    again = Flow.from_shape(json.loads(made.to_json()), handlers=LIST)
    assert dict(again.steps) == dict(made.steps)


words = st.text(
    st.sampled_from("slug: steps[]{}-&*!|>'\"#%@`,?~\n \t\r\0\ufeff\x85\u2028\ud7ff0123.e+_a/\\"), max_size=40
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["/a.json", "/a.yaml"]), st.binary(max_size=40) | words.map(str.encode))
def test_whatever_bytes_a_file_has_the_error_is_ours(name: str, data: bytes) -> None:
    with pytest.raises(PgflowError) as caught:
        finding.load_flows(Target(file=name, contents=data))
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(name)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WORDS)), st.integers(0, 5), words)
def test_whatever_is_changed_in_a_file_is_a_flow_or_an_error_of_ours(at: int, size: int, new: str) -> None:
    text = WORDS[:at] + new + WORDS[at + size :]
    try:
        (flow,) = finding.load_flows(Target(file="/a.yaml", contents=text.encode(), handlers=LIST))
    except PgflowError as error:
        str(error).encode()
    else:
        flow.to_json()


@pytest.mark.parametrize("file", [b"flow.yaml", 3, None])
def test_what_is_no_path_is_refused(file: Any) -> None:
    with pytest.raises(FlowNotFound, match="is not the path of a flow file"):
        Flow.from_file(file)
    if not isinstance(file, bytes | None):
        with pytest.raises(ConfigError, match="cannot be a list of handlers"):
            Flow.from_file("flow.yaml", handlers=file)

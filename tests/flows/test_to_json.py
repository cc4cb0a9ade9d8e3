"""Any flow whose functions have import paths is written as data, and made of it again: an equal flow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import data_handlers
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgflow_mp import Flow
from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.examples import code_metrics, primes, simple, text_processing, wide
from pgflow_mp.flows.file_format import KINDS, schema, schema_text
from pgflow_mp.flows.options import FLOW, OPTIONS, names
from pgflow_mp.testing import run_inline

ROOT = Path(__file__).resolve().parents[2]
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
jsons: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "max_attempts": st.integers(1, 2**31 - 1),
    "base_delay": st.integers(1, 2**31 - 1),
    "timeout": st.integers(3, 2**31 - 1),
    "start_delay": st.integers(0, 2**31 - 1),
    "when": st.dictionaries(texts, jsons, max_size=3),
    "unless": st.dictionaries(texts, jsons, max_size=3),
    "when_unmet": st.sampled_from(["fail", "skip", "skip-cascade"]),
    "when_exhausted": st.sampled_from(["fail", "skip", "skip-cascade"]),
    "tolerate": st.integers(0, 2**31 - 1) | st.floats(0, 1),
    "stop_after_alike": st.integers(1, 2**31 - 1),
    "storage": st.sampled_from(["tasks", "ranges"]),
    "batch": st.integers(1, 2**31 - 1),
    "barrier": st.booleans(),
    "limit": st.integers(1, 2**31 - 1),
    "rate": st.sampled_from(["100/s", "30/min", "1000/h", "0.7/h"]) | st.floats(1e-6, 1e9),
    "burst": st.integers(1, 2**31 - 1),
    "requires": st.lists(st.sampled_from(["gpu", "bigmem", "a.b"]), max_size=3, unique=True),
    "nan": st.sampled_from(["error", "null"]),
    "artifacts": st.sampled_from(["/tmp/made", "s3://bucket/made"]),
}


def options(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    known = {name: VALUES[name] for name in names(kind) if name not in ("depends_on", "over")}
    return st.fixed_dictionaries({}, optional=known).map(coherent)


def coherent(options: dict[str, Any]) -> dict[str, Any]:
    if "rate" not in options:
        options.pop("burst", None)
    return options


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    queues: Literal["flow", "step"] = "step" if draw(st.booleans()) else "flow"
    former = queues == "flow" and draw(st.booleans())
    flow = Flow("any_flow", queues=queues, former_slugs=former, **draw(options(FLOW)))
    if draw(st.booleans()):
        flow.on_start("greeting", data_handlers.greeting)
    for number in range(draw(st.integers(0, 5))):
        kind, slug = draw(st.sampled_from(KINDS)), f"s{number}" + "_" * (former and draw(st.booleans()))
        given = draw(options(kind))
        known = list(flow.steps)
        if kind == "map":
            over = draw(st.none() | st.sampled_from(known)) if known else None
            given["over"] = over
            early = over is not None and flow.steps[over].step_type == "map"
            early = early and not {"when", "unless"} & set(given)
            stored = {given.get("storage") or flow._steps.storage, flow.steps[over].storage if over else None}
            if not early or "tasks" in stored:
                given.pop("barrier", None)
            if over is not None and (flow.steps[over].tolerates or flow.steps[over].batch):
                given.pop("batch", None)  # its function takes texts, neither null nor what it returns
            handler = data_handlers.lengths if "batch" in given else data_handlers.anything
        else:
            given["depends_on"] = (
                draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
            )
            handler = data_handlers.anything
        parents = [given.get("over")] if kind == "map" else given["depends_on"]
        if parents != [None] and parents:  # a condition of such a step names parents
            for name in {"when", "unless"} & set(given):
                said = dict(zip(parents, given[name].values(), strict=False))
                given[name] = {at: [] if flow.steps[at].step_type == "map" else it for at, it in said.items()}
        getattr(flow, kind)(slug, handler, **given)
    return flow


def assert_equal(one: Flow, other: Flow) -> None:
    for name in ("slug", "queues", "options", "limits", "artifacts", "nulls"):
        assert getattr(one, name) == getattr(other, name), name
    assert dict(one.steps) == dict(other.steps)
    assert list(one.steps) == list(other.steps)
    assert dict(one.start_functions) == dict(other.start_functions)
    assert one.shape() == other.shape()
    assert one.to_sql() == other.to_sql()
    assert (one._steps.former_slugs, one._steps.storage) == (other._steps.former_slugs, other._steps.storage)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flows())
def test_there_and_back(flow: Flow) -> None:
    data = json.loads(flow.to_json())
    jsonschema.validate(data, schema())
    assert_equal(Flow.from_shape(data, handlers="data_handlers"), flow)


def test_every_option_is_part_of_the_property_above() -> None:
    assert set(VALUES) == {spec.name for spec in OPTIONS} - {"depends_on", "over"}


@pytest.mark.parametrize(
    "flow", [code_metrics.flow, primes.flow, simple.flow, text_processing.flow, wide.flow], ids=str
)
def test_the_examples_can_be_written(flow: Flow) -> None:
    again = Flow.from_shape(json.loads(flow.to_json()), handlers="pgflow_mp.examples.*")
    assert_equal(again, flow)


class Method:
    def method(self, value: Any) -> Any: ...

    @staticmethod
    def static(value: Any) -> Any: ...


def outer() -> Any:
    def inner(value: Any) -> Any: ...

    return inner


@pytest.mark.parametrize("handler", [lambda value: value, Method().method, Method.static, outer()])
def test_what_has_no_import_path_is_refused(handler: Any) -> None:
    flow = Flow("a").step("first", handler)
    with pytest.raises(
        FlowDefinitionError, match='handler of step "first" of flow "a" has no import path'
    ) as it:
        flow.to_json()
    assert "define it with def" in it.value.hint


def test_what_is_hidden_under_its_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow("a").step("first", data_handlers.length)
    monkeypatch.setattr(data_handlers, "length", data_handlers.split)
    with pytest.raises(FlowDefinitionError, match="has no import path"):
        flow.to_json()
    flow = Flow("b")
    flow.on_start("made", lambda: 1)
    with pytest.raises(FlowDefinitionError, match='on_start function "made" of flow "b" has no import path'):
        flow.to_json()


def test_partials_and_objects_have_the_path_of_their_variable() -> None:
    flow = Flow("a").step("first", data_handlers.partial)
    flow.module = data_handlers.__name__
    assert json.loads(flow.to_json())["steps"][0]["handler"] == "data_handlers:partial"


def test_the_script_that_runs_has_no_import_paths(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pgflow_mp import Flow\nflow = Flow('a')\n@flow.step\ndef f(x): pass\nprint(flow.to_json())\n"
    )
    done, imported = (
        subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        for words in (("script.py",), ("-c", "import script"))
    )
    assert 'is in the script that runs, "f": it has no import path' in done.stderr
    assert json.loads(imported.stdout)["steps"] == [{"slug": "f", "handler": "script:f"}]


def test_a_flow_without_steps_yet_is_written_read_and_valid_alike() -> None:
    data = json.loads(Flow("empty").to_json())
    jsonschema.validate(data, schema())
    assert Flow.from_shape(data).to_json() == Flow("empty").to_json()
    with pytest.raises(FlowDefinitionError, match='Flow "empty" has no steps'):
        run_inline(Flow.from_shape(data), {})


def test_the_schema_that_is_published_is_that_of_the_options() -> None:
    assert (ROOT / "docs" / "flow-files.schema.json").read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft7Validator.check_schema(schema())


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"slug": "a"},
        {"slug": "a", "steps": [{}]},
        {"slug": "a-b", "steps": [{"handler": "a:b"}]},
        {"slug": "a", "steps": [{"handler": "ab"}]},
        {"slug": "a", "steps": [{"handler": "a:b", "over": "c"}]},
        {"slug": "a", "steps": [{"handler": "a:b", "kind": "array", "tolerate": 1}]},
        {"slug": "a", "steps": [{"handler": "a:b", "kind": "map", "depends_on": "c"}]},
        {"slug": "a", "steps": [{"handler": "a:b", "timeout": 2}]},
        {"slug": "a", "steps": [{"handler": "a:b", "timeout": "9"}]},
        {"slug": "a", "steps": [{"handler": "a:b", "when": []}]},
        {"slug": "a", "steps": [{"handler": "a:b", "when_unmet": "no"}]},
        {"slug": "a", "steps": [{"handler": "a:b"}], "stps": 1},
    ],
)
def test_what_the_schema_refuses(data: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())

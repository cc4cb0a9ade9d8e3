"""Defining flows: decorators, parents, options, and the contract's error texts (worker section 6)."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from pgflow_mp import Context, Flow, FlowDefinitionError, FlowNotFound
from pgflow_mp.flows.binding import Source


def nothing(*args: object) -> None:
    return None


def sources(flow: Flow, slug: str) -> list[Source]:
    return [argument.source for argument in flow.steps[slug].arguments]


def test_a_decorator_without_parentheses_takes_the_functions_name_as_slug() -> None:
    flow = Flow("demo")

    @flow.step
    def first(x: int) -> int:
        return x + 1

    assert list(flow.steps) == ["first"]
    assert flow.steps["first"].handler is first
    assert first(3) == 4


def test_decorators_take_a_slug_and_options() -> None:
    flow = Flow("demo")

    @flow.step("other", max_attempts=2, start_delay=0)
    def first() -> int:
        return 1

    @flow.array()
    def second() -> list[int]:
        return [1]

    @flow.map(slug="third", over=second)
    def mapped(x: int) -> int:
        return x

    assert list(flow.steps) == ["other", "second", "third"]
    assert flow.steps["other"].options == {"max_attempts": 2, "start_delay": 0}
    assert [step.is_array for step in flow.steps.values()] == [False, True, False]
    assert [step.step_type for step in flow.steps.values()] == ["single", "single", "map"]


def test_fluent_calls_chain() -> None:
    flow = Flow("demo").step("a", nothing).array("b", nothing, depends_on="a").map("c", nothing, over="b")
    assert {slug: step.dependencies for slug, step in flow.steps.items()} == {
        "a": (),
        "b": ("a",),
        "c": ("b",),
    }


def test_parents_are_slugs_or_functions_also_behind_other_decorators() -> None:
    flow = Flow("demo")

    @flow.step
    def a() -> int:
        return 1

    @flow.step("bee")
    def b() -> int:
        return 2

    @functools.wraps(b)
    def wrapped() -> int:
        return b()

    flow.step("c", nothing, depends_on=["a", wrapped])
    flow.step("d", nothing, depends_on=a)
    assert flow.steps["c"].dependencies == ("a", "bee")
    assert flow.steps["d"].dependencies == ("a",)


def test_a_function_that_handles_two_steps_is_no_unambiguous_parent() -> None:
    flow = Flow("demo").step("a", nothing).step("b", nothing)
    with pytest.raises(FlowDefinitionError, match="handler of several steps: a, b"):
        flow.step("c", len, depends_on=[nothing])


def test_a_flow_knows_the_module_and_file_that_made_it() -> None:
    flow = Flow("demo")
    assert flow.module == __name__
    assert flow.file == __file__


def test_an_unknown_step_is_named_with_its_flow() -> None:
    flow = Flow("demo").step("a", nothing)
    with pytest.raises(FlowNotFound, match='Step "x" does not exist in flow "demo"'):
        flow.steps["x"]
    assert "x" not in flow.steps
    assert flow.steps.get("x") is None


def test_steps_cannot_be_changed_from_outside() -> None:
    flow = Flow("demo").step("a", nothing)
    with pytest.raises(TypeError):
        flow.steps["b"] = flow.steps["a"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("slug", "text"),
    [
        ("", "Slug cannot be empty"),
        ("a" * 129, f"Slug '{'a' * 129}' cannot be longer than 128 characters"),
        ("run", "Slug 'run' is reserved and cannot be used"),
        ("1abc", "Slug '1abc' cannot start with a number"),
        ("a-b", "Slug 'a-b' can only contain letters, numbers, and underscores"),
        ("a b", "Slug 'a b' can only contain letters, numbers, and underscores"),
        ("ä", "Slug 'ä' can only contain letters, numbers, and underscores"),
        ("a\n", "Slug 'a\n' can only contain letters, numbers, and underscores"),
    ],
)
def test_bad_slugs_are_refused_for_flows_and_steps(slug: str, text: str) -> None:
    with pytest.raises(FlowDefinitionError) as of_flow:
        Flow(slug)
    with pytest.raises(FlowDefinitionError) as of_step:
        Flow("demo").step(slug, nothing)
    assert str(of_flow.value) == str(of_step.value) == text


@pytest.mark.parametrize("slug", ["a", "a_1", "A1", "valid_slug", "running"])
def test_good_slugs_are_accepted(slug: str) -> None:
    assert list(Flow(slug).step(slug, nothing).steps) == [slug]


def test_a_flow_slug_that_is_no_queue_name_is_refused_early() -> None:
    assert Flow("a" * 47).slug
    with pytest.raises(FlowDefinitionError, match="cannot be longer than 47 characters"):
        Flow("a" * 48)
    assert Flow("demo").step("a" * 128, nothing).steps


def test_a_duplicate_step_is_refused() -> None:
    with pytest.raises(FlowDefinitionError, match=r'(?m)^Step "a" already exists in flow "demo"$'):
        Flow("demo").step("a", nothing).step("a", nothing)


def test_steps_that_differ_only_in_case_are_refused() -> None:
    text = (
        'Steps "a" and "A" in flow "demo" conflict case-insensitively: '
        "step slugs must be unique case-insensitively."
    )
    with pytest.raises(FlowDefinitionError, match=f"^{text}$"):
        Flow("demo").step("a", nothing).step("A", nothing)


@pytest.mark.parametrize("slug", ["_a", "a_", "a__b", "_"])
def test_underscores_join_words_and_no_more(slug: str) -> None:
    with pytest.raises(FlowDefinitionError, match=f"^Slug '{slug}' cannot start or end with an underscore"):
        Flow("demo").step(slug, nothing)


def test_a_flow_from_before_keeps_its_slugs_where_that_is_said() -> None:
    with pytest.raises(FlowDefinitionError) as caught:
        Flow("old__flow")
    assert "former_slugs=True" in caught.value.hint
    flow = Flow("old__flow", former_slugs=True).step("_a", nothing)
    assert list(flow.steps) == ["_a"]
    with pytest.raises(
        FlowDefinitionError, match=r'^former_slugs=True and queues="step" cannot be used together'
    ) as caught:
        Flow("old__flow", former_slugs=True, queues="step")
    assert "queues" in caught.value.hint
    with pytest.raises(FlowDefinitionError, match=r"^former_slugs must be True or False, not 'yes'"):
        Flow("old__flow", former_slugs="yes")  # type: ignore[arg-type]
    with pytest.raises(FlowDefinitionError, match="can only contain letters"):
        flow.step("a-b", nothing)


def test_a_step_queue_that_no_name_fits_is_refused_where_it_is_defined() -> None:
    with pytest.raises(FlowDefinitionError, match="must be 'flow' or 'step', not 'steps'"):
        Flow("demo", queues="steps")  # type: ignore[arg-type]
    long = "f" * 45
    assert Flow(long).slug
    with pytest.raises(FlowDefinitionError) as caught:
        Flow(long, queues="step")
    assert str(caught.value).splitlines()[0] == (
        f'Flow "{long}" cannot use per-step queues. The shortest required queue "{long}__0" is 48 characters;'
        " PGMQ allows at most 47. Shorten the concrete flow slug or use the default single queue."
    )
    flow = Flow("f" * 44, queues="step")
    for index in range(10):
        flow.step(f"step{index}", nothing)
    with pytest.raises(
        FlowDefinitionError, match=r'^Cannot derive a queue for step "step10" at index 10 in flow'
    ):
        flow.step("step10", nothing)


@pytest.mark.parametrize("parent", ["nope", "b", len])
def test_an_undefined_parent_is_refused(parent: str | Callable[..., Any]) -> None:
    name = parent if isinstance(parent, str) else "len"
    with pytest.raises(FlowDefinitionError, match=f'(?m)^Step "b" depends on undefined step "{name}"$'):
        Flow("demo").step("a", nothing).step("b", nothing, depends_on=[parent])


def test_a_parent_given_twice_is_refused() -> None:
    flow = Flow("demo").step("a", nothing)
    with pytest.raises(FlowDefinitionError, match='Step "b" depends on step "a" more than once'):
        flow.step("b", nothing, depends_on=["a", nothing])


def test_a_map_over_several_parents_is_refused_with_the_databases_text() -> None:
    flow = Flow("demo").step("a", nothing).step("b", nothing)
    text = 'Map step "m" can have at most one dependency, but 2 were provided: a, b'
    with pytest.raises(FlowDefinitionError, match=f"(?m)^{text}$"):
        flow.map("m", nothing, over=["a", "b"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "minimum"), [("max_attempts", 1), ("base_delay", 1), ("timeout", 3), ("start_delay", 0)]
)
def test_options_have_bounds(name: str, minimum: int) -> None:
    options: dict[str, Any] = {name: minimum}
    assert Flow("demo").step("a", nothing, **options).steps["a"].options == options
    with pytest.raises(FlowDefinitionError, match=f"(?m)^{name} must be greater than or equal to {minimum}$"):
        Flow("demo").step("a", nothing, **{name: minimum - 1})  # type: ignore[call-overload]
    for wrong in (True, 2.5, "3"):
        with pytest.raises(FlowDefinitionError, match=f"^{name} must be an integer"):
            Flow("demo").map("a", nothing, **{name: wrong})  # type: ignore[call-overload]
    with pytest.raises(FlowDefinitionError, match=f"(?m)^{name} must be less than or equal to 2147483647$"):
        Flow("demo").map("a", nothing, **{name: 2**31})  # type: ignore[call-overload]


def test_flow_options_have_the_same_bounds() -> None:
    assert Flow("demo", max_attempts=1, timeout=None).options == {"max_attempts": 1}
    with pytest.raises(FlowDefinitionError, match=r"(?m)^timeout must be greater than or equal to 3$"):
        Flow("demo", timeout=2)


@pytest.mark.parametrize(
    ("option", "meant"),
    [("maxAttempts", "max_attempts"), ("depends", "depends_on"), ("retries", "max_attempts"), ("over", "")],
)
def test_an_unknown_option_is_refused_with_the_one_that_was_meant(option: str, meant: str) -> None:
    with pytest.raises(FlowDefinitionError, match=f'(?m)^Step "a" has no option "{option}"$') as caught:
        Flow("demo").step("a", nothing, **{option: 1})  # type: ignore[call-overload]
    assert f"Did you mean {meant}?" in caught.value.hint or not meant
    with pytest.raises(FlowDefinitionError, match="has no option"):
        Flow("demo", **{option: 1})  # type: ignore[arg-type]


def test_a_map_has_no_depends_on() -> None:
    with pytest.raises(FlowDefinitionError, match='Map "m" has no option "depends_on"'):
        Flow("demo").step("a", nothing).map("m", nothing, depends_on=["a"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "pattern", [[1], "x", 5, {"a": float("nan")}, {"a": {1}}, {"a": "\0"}, {"a": "\ud800"}]
)
def test_a_pattern_that_is_no_json_object_is_refused(pattern: Any) -> None:
    for name in ("when", "unless"):
        options: Any = {name: pattern}
        with pytest.raises(FlowDefinitionError, match=name):
            Flow("demo").step("a", nothing, **options)


def test_patterns_and_modes_are_kept_and_copied() -> None:
    pattern = {"role": ["admin"]}
    flow = Flow("demo").step(
        "a", nothing, when=pattern, unless={}, when_unmet="skip-cascade", when_exhausted="skip"
    )
    pattern["role"].append("changed later")
    step = flow.steps["a"]
    assert (step.when, step.unless) == ({"role": ["admin"]}, {})
    assert (step.when_unmet, step.when_exhausted) == ("skip-cascade", "skip")


def test_bad_modes_are_refused() -> None:
    for name in ("when_unmet", "when_exhausted"):
        options: Any = {name: "skip_cascade"}
        with pytest.raises(FlowDefinitionError, match=f'{name} of step "a"') as caught:
            Flow("demo").step("a", nothing, **options)
        assert caught.value.hint == "Did you mean skip-cascade?"


async def a_coroutine(x: int) -> int:
    return x


class AsyncCallable:
    async def __call__(self, x: int) -> int:
        return x


@functools.wraps(a_coroutine)
def runs_a_coroutine(x: int) -> int:
    return asyncio.run(a_coroutine(x))


def test_a_plain_function_that_wraps_a_coroutine_function_is_a_handler() -> None:
    flow = Flow("demo").step("a", runs_a_coroutine)
    assert flow.steps["a"].handler is runs_a_coroutine


@pytest.mark.parametrize(
    "handler",
    [
        a_coroutine,
        AsyncCallable(),
        AsyncCallable().__call__,
        functools.partial(a_coroutine, 1),
        functools.partial(AsyncCallable(), 1),
    ],
)
def test_a_coroutine_function_is_no_handler(handler: Any) -> None:
    with pytest.raises(FlowDefinitionError, match="is a coroutine function"):
        Flow("demo").step("a", handler)


def test_what_cannot_be_called_is_no_handler() -> None:
    with pytest.raises(FlowDefinitionError, match="must be callable, not int"):
        Flow("demo").step("a", 5)  # type: ignore[call-overload]


def test_a_handler_without_a_name_needs_a_slug() -> None:
    with pytest.raises(FlowDefinitionError, match="without a name"):
        Flow("demo").map(lambda x: x)
    assert Flow("demo").map("m", lambda x: x).steps


def test_a_failed_definition_leaves_the_flow_as_it_was() -> None:
    flow = Flow("demo").step("a", nothing)
    with pytest.raises(FlowDefinitionError):
        flow.step("b", nothing, depends_on=["a"], timeout=1)
    assert list(flow.steps) == ["a"]


def test_arguments_are_bound_by_name_annotation_and_position() -> None:
    def root(anything: int, ctx: Context) -> None: ...
    def parents_by_name(b: None, flow_input: int, a: None, where: Context | None = None) -> None: ...
    def parents_as_mapping(deps: dict[str, int], context: Context) -> None: ...
    def parents_as_keywords(a: None, **others: int) -> None: ...
    def element(ctx: Context, a: str, scale: int = 2) -> None: ...

    flow = Flow("demo").step("a", root).step("b", nothing)
    flow.step("c", parents_by_name, depends_on=["a", "b"])
    flow.step("d", parents_as_mapping, depends_on=["a", "b"])
    flow.step("e", parents_as_keywords, depends_on=["a", "b"])
    flow.map("m", element, over="a")
    assert sources(flow, "a") == [Source.INPUT, Source.CONTEXT]
    assert sources(flow, "c") == [Source.PARENT, Source.FLOW_INPUT, Source.PARENT, Source.CONTEXT]
    assert sources(flow, "d") == [Source.PARENTS, Source.CONTEXT]
    assert sources(flow, "e") == [Source.PARENT, Source.OTHER_PARENTS]
    assert sources(flow, "m") == [Source.CONTEXT, Source.INPUT]


def test_a_parameter_that_can_never_be_supplied_is_refused_by_name() -> None:
    def two(item: int, other: int) -> None: ...
    def typo(a: int, bee: int) -> None: ...

    here = "test_a_parameter_that_can_never_be_supplied_is_refused_by_name"
    with pytest.raises(FlowDefinitionError) as caught:
        Flow("demo").map("m", two)
    assert str(caught.value).replace(f"{here}.", "") == (
        'Handler "two" of step "m" of flow "demo": parameter "other" can never be supplied; '
        "available are the element (first free parameter), flow_input, and ctx"
    )
    assert '"item" already takes' in caught.value.hint
    flow = Flow("demo").step("a", nothing).step("b", nothing)
    with pytest.raises(FlowDefinitionError, match=r'"bee" can never be supplied.*by name \(a, b\)'):
        flow.step("c", typo, depends_on=["a", "b"])


def test_a_parameter_named_context_with_another_type_is_refused() -> None:
    def score(context: list[int]) -> None: ...

    with pytest.raises(FlowDefinitionError, match='"context" receives the Context, yet it is annotated'):
        Flow("demo").map("m", score)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tolerate": True}, "tolerate of .* must be a number, not bool"),
        ({"tolerate": "1%"}, "tolerate of .* must be a number, not str"),
        ({"tolerate": -1}, "must not be negative"),
        ({"tolerate": 2**31}, "must not be more than 2147483647"),
        ({"tolerate": 1.5}, "must be a share from 0.0 to 1.0, not 1.5"),
        ({"tolerate": float("nan")}, "must be a share"),
        ({"stop_after_alike": 0}, "stop_after_alike must be greater than or equal to 1"),
    ],
)
def test_a_failure_policy_out_of_bounds_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(FlowDefinitionError, match=text):
        Flow("f").map("m", abs, **options)


def test_only_maps_have_a_failure_policy() -> None:
    for option in ("tolerate", "stop_after_alike", "storage", "batch", "barrier"):
        with pytest.raises(FlowDefinitionError, match=f'has no option "{option}"') as caught:
            Flow("f").step("s", abs, **{option: 1})  # type: ignore[call-overload]
        assert caught.value.hint.startswith("It is an option of maps. Options are ")


def test_a_flow_that_says_its_input_is_of_the_module_that_made_it() -> None:
    flow = Flow[list[int]]("f")

    @flow.map
    def double(x: int) -> int:
        return 2 * x

    assert (flow.module, flow.file) == (__name__, __file__)
    assert flow.steps["double"].handler is double
    assert type(double).__name__ == "function"

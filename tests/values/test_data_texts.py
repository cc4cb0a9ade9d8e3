"""Small documents in JSON and YAML: read strictly, with lines, within bounds of time and size."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow_mp.values.datatexts import Document, Unreadable, read_json
from pgflow_mp.values.yamltext import read_yaml

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


def values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        plain | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=20,
    )


def wrong(read: Any, text: str) -> Unreadable:
    began = time.perf_counter()
    with pytest.raises(Unreadable) as caught:
        read(text)
    assert time.perf_counter() - began < 5
    return caught.value


@given(values(st.text()))
def test_json_is_read_as_json_reads_it(value: Any) -> None:
    assert read_json(json.dumps(value)).value == value


@given(values(st.text(st.characters(min_codepoint=32, max_codepoint=126))))
def test_json_is_read_alike_by_both_where_it_has_no_odd_characters(value: Any) -> None:
    assert read_yaml(json.dumps(value)).value == value


def test_parts_have_lines() -> None:
    texts = (
        '{"slug": "a",\n"steps": [\n{"x": 1},\n{"y": {"z": [1,\n2]},\n"x": 3}]}',
        "slug: a\nsteps:\n- x: 1\n- y: {z: [1,\n    2]}\n  x: 3\n",
    )
    for read, text in ((read_json, texts[0]), (read_yaml, texts[1])):
        document: Document = read(text)
        assert document.value == {"slug": "a", "steps": [{"x": 1}, {"y": {"z": [1, 2]}, "x": 3}]}
        assert [document.line_of(way) for way in ((), ("slug",), ("steps",))] == [1, 1, 2]
        lines = [document.line_of(("steps", *way)) for way in ((0,), (1,), (1, "y"), (1, "x"))]
        assert lines == [3, 4, 4, 6]
        assert document.line_of(("steps", 7, "nothing")) == 2


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ('{"a": 1,\n"b": {"c": 1,\n"d": 2,\n"c": 3}}', "has the key 'c' twice", 4),
        ('{"a":\nNaN}', "NaN is no JSON", 2),
        ('{"a":\n-Infinity}', "-Infinity is no JSON", 2),
        ('{"a":\n\n1e999}', "is too large", 3),
        ('{"a": 1,}', "no JSON: ", 1),
        ('{"a": 1} x', "Extra data", 1),
        ("[" * 100_000, "nested too deeply", None),
        ('{"a": ' * 100_000, "nested too deeply", None),
        ("[" + "9" * 5000 + "]", "too many digits", None),
        ('{"a": 012}', "no JSON", 1),
        ("{'a': 1}", "no JSON", 1),
    ],
)
def test_json_that_is_refused(text: str, what: str, line: int | None) -> None:
    error = wrong(read_json, text)
    assert what in str(error)
    assert error.line == line


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12)
)


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "has the key 'c' twice", 4),
        (BOMB, "aliases stand for more than 10,000 values", 5),
        ("a: &a [*a]", "what is called &a holds itself", 1),
        ("a: *b", "there is no &b", 1),
        ("a: &b c\n? *b\n: 1", "an alias cannot be a key", 2),
        ("a: !!python/object/apply:os.system [ls]", "has the tag '!!python/object/apply:os.system'", 1),
        ("a: !!set {b}", "has the tag '!!set'", 1),
        ("!x a: b", "has the tag '!x'", 1),
        ("<<: {a: 1}", "merge keys", 1),
        ("1: a", "the key '1' of a mapping is no text", 1),
        ("? [a]\n: 1", "a key of a mapping is no text", 1),
        ("a: 1\n---\nb: 2", "second document", 2),
        ("a:\n  b: .nan", "not a number that JSON has", 2),
        ("a: -.inf", "not a number that JSON has", 1),
        ("a: 012", "begins with 0", 1),
        ("a: 1e999", "too large", 1),
        ("a: " + "9" * 5000, "too many digits", 1),
        ("a:\n\tb: 1", "no YAML", 2),
        ("a: b\n c: d: e", "no YAML", 2),
        ("a: '", "no YAML", None),
        ("[" * 1_000_000, "nest", 1),
        ("".join(" " * n + "a:\n" for n in range(150)), "nested more than 100 levels deep", 101),
        ("- " * 300, "nested more than 100 levels deep", 1),
        ("a: \x01", "no YAML", None),
    ],
)
def test_yaml_that_is_refused(text: str, what: str, line: int | None) -> None:
    error = wrong(read_yaml, text)
    assert what in str(error)
    if line is not None:
        assert error.line == line


def test_plain_words_mean_what_yaml_1_2_says() -> None:
    text = (
        "texts: [yes, no, on, off, 1:30, 2026-11-26, 0x10, 1_000, ~a, '1', \"null\", =]\n"
        "numbers: [1, -2, +3, 1.5, .5, 1e3, -1.5E-3]\n"
        "words: [true, False, null, ~, ]\nempty:\nlong: |\n  two\n  lines\n"
    )
    assert read_yaml(text).value == {
        "texts": [
            *("yes", "no", "on", "off", "1:30", "2026-11-26", "0x10", "1_000", "~a", "1", "null", "="),
        ],
        "numbers": [1, -2, 3, 1.5, 0.5, 1000.0, -0.0015],
        "words": [True, False, None, None],
        "empty": None,
        "long": "two\nlines\n",
    }


def test_aliases_are_followed() -> None:
    text = "when: &new {status: new}\nsteps:\n- when: *new\n- &x a\n- *x\n"
    assert read_yaml(text).value == {
        "when": {"status": "new"},
        "steps": [{"when": {"status": "new"}}, "a", "a"],
    }


def test_a_large_document_does_not_take_long() -> None:
    step = "- {slug: step_%d, handler: 'app.steps:count', timeout: 60}\n"
    text = "slug: a\nsteps:\n" + "".join(step % number for number in range(20_000))
    began = time.perf_counter()
    assert len(read_yaml(text).value["steps"]) == 20_000
    assert time.perf_counter() - began < 20

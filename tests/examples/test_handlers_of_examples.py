"""What the examples' functions compute, called as plain functions: steps stay callable."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgflow_mp import PermanentError
from pgflow_mp.examples import code_metrics, primes, simple, text_processing, wide

KNOWN = {0: 0, 1: 0, 2: 0, 3: 1, 10: 4, 100: 25, 1000: 168, 10_000: 1229, 1_000_000: 78498}


def test_the_root_step_of_simple_doubles() -> None:
    assert simple.root_step(simple.Start(21)) == 42
    assert simple.third_step(42, simple.normal_step(42)) == "42 + 10 = 52"


def test_text_processing_cleans_lines_and_keeps_their_order() -> None:
    lines = [text_processing.normalize(line) for line in ("  b  A ", "", "c")]
    summary = text_processing.summarize([text_processing.capitalize(line) for line in lines])
    assert summary == text_processing.Summary(lines=["B A", "", "C"], words=3, longest="B A")


def test_wide_is_a_diamond_of_at_least_ten_parallel_steps_with_several_joins() -> None:
    steps = wide.flow.steps
    parallel = [step for step in steps.values() if step.dependencies == ("sample",)]
    joins = [step for step in steps.values() if len(step.dependencies) > 1]
    assert len(parallel) >= 10
    assert len(joins) >= 3
    assert steps["report"].dependencies == ("size", "center", "spread")


def test_a_sample_that_is_too_small_fails_for_good() -> None:
    with pytest.raises(PermanentError, match="at least two values"):
        wide.sample(wide.Numbers([1.0]))


@pytest.mark.parametrize(("below", "count"), KNOWN.items())
@pytest.mark.parametrize("segment", [7, 1000, 300_000])
def test_both_ways_of_counting_primes_agree_with_the_known_counts(
    below: int, count: int, segment: int
) -> None:
    task = primes.Task(below, segment=max(segment, below // 100))
    counts = [primes.sieve(piece) for piece in primes.segments(task)]
    assert sum(counts) == primes.second_opinion(task) == count


def test_a_wrong_count_of_primes_fails_for_good() -> None:
    with pytest.raises(PermanentError, match="counted 24 primes, Legendre 25"):
        primes.verdict([24], 25, primes.Task(100))


def test_metrics_of_a_small_file_are_those_counted_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "small.py"
    file.write_text(
        "import os\n"
        "\n"
        "\n"
        "class A:\n"
        "    # a comment\n"
        "    def f(self, x):\n"
        "        if x and os:\n"
        "            return [y for y in x if y]\n"
        "        return x\n"
    )
    found = code_metrics.measure(str(file))
    assert (found.lines, found.code_lines, found.imports, found.classes, found.functions) == (9, 6, 1, 1, 1)
    assert found.worst == code_metrics.FunctionMetrics("f", 6, complexity=5)
    assert found.complexity == 5
    assert found.problem is None


def test_entropy_is_that_of_shannon() -> None:
    counts = code_metrics.count_tokens(b"a\nb\nc\nd\n")
    assert code_metrics.entropy(counts.texts) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"def f(:\n", "SyntaxError"),
        (b"x = (\n", "SyntaxError"),
        (b"if x:\nreturn\n", "IndentationError"),
        (b"# coding: klingon\n", "SyntaxError"),
        (b"x = '\xff'\n", "SyntaxError"),
        (b"x = 1\0\n", "Error"),
        (b"x = " + b"(" * 5000 + b")" * 5000 + b"\n", "Error"),
        (b"x = " + b"-" * 200_000 + b"1\n", "Error"),
        (b"#" * (code_metrics.LARGEST + 1), "larger than"),
    ],
    ids=["syntax", "unclosed", "indent", "codec", "bytes", "nul", "nested", "deep", "huge"],
)
def test_a_broken_file_is_a_result_with_a_problem(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "broken.py"
    file.write_bytes(content)
    found = code_metrics.measure(str(file))
    assert found.problem is not None
    assert problem in found.problem
    assert found.tokens == 0


@pytest.mark.parametrize("name", ["missing.py", "directory.py"])
def test_a_file_that_cannot_be_read_is_a_result_with_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory.py").mkdir()
    found = code_metrics.measure(str(tmp_path / name))
    assert "Error" in (found.problem or "")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xef\xbb\xbfx = 1\n", b"x = 1\r\ny = 2\r\n", b"# coding: latin-1\nx = '\xff'\n", b"x = 1"],
)
def test_an_odd_but_valid_file_is_measured(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "odd.py"
    file.write_bytes(content)
    assert code_metrics.measure(str(file)).problem is None


def test_files_are_found_sorted_once_and_only_those_that_json_can_name(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "c.txt", "__pycache__/a.py", "deep/er/d.py", "ünïcode.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "bad\udcff.py").write_text("")
    (tmp_path / "again").symlink_to(tmp_path)
    request = code_metrics.Request(paths=[str(tmp_path), str(tmp_path / "again"), str(tmp_path / "a.py")])
    names = [str(Path(path).relative_to(tmp_path.resolve())) for path in code_metrics.list_files(request)]
    assert names == ["a.py", "b.py", "deep/er/d.py", "ünïcode.py"]


def test_a_limit_draws_an_even_sample(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.py").write_text("")
    for limit, names in ((3, "036"), (1, "0"), (10, "0123456789"), (99, "0123456789"), (0, "0123456789")):
        files = code_metrics.list_files(code_metrics.Request(paths=[str(tmp_path)], limit=limit))
        assert "".join(Path(path).stem for path in files) == names


def test_a_path_that_does_not_exist_fails_for_good(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="There is no"):
        code_metrics.list_files(code_metrics.Request(paths=[str(tmp_path / "nowhere")]))


def test_this_machine_has_at_least_a_thousand_python_files() -> None:
    files = code_metrics.list_files(code_metrics.Request())
    assert len(files) > 1000
    assert len(set(files)) == len(files)

"""Measure every Python file of the standard library and of site-packages, one item a file.

    python -m pgflow_mp run code_metrics
    python -m pgflow_mp run code_metrics --input '{"limit": 100}'
    python -m pgflow_mp run code_metrics --input '{"paths": ["src"], "top": 5}' --output report.json

``list_files`` finds the files, ``measure`` parses and tokenizes one of them, and ``report`` ranks them.
A file that is broken, binary or huge is a result like any other, with the reason in ``problem``: only
what may succeed at the next attempt should fail an item. ``plain()`` is the same work as a simple loop.
"""

from __future__ import annotations

import ast
import io
import math
import os
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pgflow_mp import Flow, PermanentError

DEFAULT_INPUT: dict[str, object] = {}

LARGEST = 4_000_000
"""Bytes; what is larger was written by a program and is not measured."""
BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.Assert,
    ast.match_case,
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SKIPPED = {"__pycache__", "site-packages", "dist-packages"}
"""Directories not entered. Packages of this interpreter are found by their own path."""


class Request(msgspec.Struct):
    """Input of the run. ``paths`` are files and directories; ``limit`` draws an even sample of the files."""

    paths: list[str] | None = None
    limit: int | None = None
    top: int = 10


class FunctionMetrics(msgspec.Struct):
    """One function; ``complexity`` is cyclomatic: 1 and 1 for every branch."""

    name: str
    line: int
    complexity: int


class FileMetrics(msgspec.Struct, omit_defaults=True):
    """One file. ``entropy`` is in bits a token; ``worst`` is the most complex function."""

    path: str
    bytes: int = 0
    lines: int = 0
    code_lines: int = 0
    tokens: int = 0
    functions: int = 0
    classes: int = 0
    imports: int = 0
    complexity: int = 0
    entropy: float = 0.0
    worst: FunctionMetrics | None = None
    problem: str | None = None


class Ranked(msgspec.Struct):
    """One line of a ranking."""

    place: str
    value: float


class Report(msgspec.Struct):
    """Output of the run: sums over all measured files, and rankings."""

    files: int
    broken: int
    bytes: int
    lines: int
    code_lines: int
    tokens: int
    functions: int
    classes: int
    imports: int
    complexity: int
    mean_entropy: float
    most_complex_functions: list[Ranked]
    longest_files: list[Ranked]
    richest_files: list[Ranked]
    problems: list[str]


flow = Flow("code_metrics")


@flow.array
def list_files(request: Request) -> list[str]:
    """The paths of all files to measure, sorted."""
    files = sorted({file for root in roots(request.paths) for file in python_files(root)})
    if not request.limit or request.limit >= len(files):
        return files
    return [files[index * len(files) // request.limit] for index in range(request.limit)]


@flow.map(over=list_files)
def measure(path: str) -> FileMetrics:
    """Parse and tokenize one file."""
    metrics = FileMetrics(path)
    try:
        metrics.bytes = os.stat(path).st_size
        if metrics.bytes > LARGEST:
            metrics.problem = f"larger than {LARGEST} bytes"
            return metrics
        source = Path(path).read_bytes()
        tree = parse(source, path)
        counts = count_tokens(source)
        functions = list(measure_functions(tree))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        metrics.problem = f"{type(error).__name__}: {error}"
        return metrics
    nodes = Counter(type(node) for node in ast.walk(tree))
    metrics.lines = len(source.splitlines())
    metrics.code_lines = counts.code_lines
    metrics.tokens = counts.texts.total()
    metrics.functions = len(functions)
    metrics.classes = nodes[ast.ClassDef]
    metrics.imports = nodes[ast.Import] + nodes[ast.ImportFrom]
    metrics.complexity = sum(function.complexity for function in functions)
    metrics.entropy = round(entropy(counts.texts), 6)
    metrics.worst = max(functions, key=lambda function: function.complexity, default=None)
    return metrics


@flow.step(depends_on=[measure])
def report(measure: list[FileMetrics], flow_input: Request) -> Report:
    """Add everything up and rank it."""
    good = [file for file in measure if file.problem is None]
    worst = [(file, file.worst) for file in good if file.worst is not None]
    return Report(
        files=len(measure),
        broken=len(measure) - len(good),
        bytes=sum(file.bytes for file in good),
        lines=sum(file.lines for file in good),
        code_lines=sum(file.code_lines for file in good),
        tokens=sum(file.tokens for file in good),
        functions=sum(file.functions for file in good),
        classes=sum(file.classes for file in good),
        imports=sum(file.imports for file in good),
        complexity=sum(file.complexity for file in good),
        mean_entropy=round(math.fsum(file.entropy for file in good) / max(len(good), 1), 6),
        most_complex_functions=ranking(
            [(f"{file.path}:{it.line} {it.name}", it.complexity) for file, it in worst], flow_input.top
        ),
        longest_files=ranking([(file.path, file.code_lines) for file in good], flow_input.top),
        richest_files=ranking([(file.path, file.entropy) for file in good], flow_input.top),
        problems=[f"{file.path}: {file.problem}" for file in measure if file.problem][: flow_input.top],
    )


def plain(request: Request | None = None) -> Report:
    """The whole flow in one process, without a database: what its numbers are compared with."""
    request = request or Request()
    return report([measure(path) for path in list_files(request)], request)


def roots(paths: list[str] | None) -> list[str]:
    """Where to look: the given paths, else this interpreter's library and packages."""
    if paths is None:
        paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    elif missing := [path for path in paths if not os.path.exists(path)]:
        raise PermanentError(f"There is no {', '.join(missing)}")
    return sorted({os.path.realpath(path) for path in paths})


def python_files(root: str) -> Iterator[str]:
    """All files below ``root`` that end in .py; or ``root`` itself, if it is a file."""
    if os.path.isfile(root):
        yield root
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED and is_text(name)]
        yield from (os.path.join(directory, name) for name in names if name.endswith(".py") and is_text(name))


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8: no other one can be written as JSON."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def parse(source: bytes, path: str) -> ast.Module:
    """The syntax tree, without the compiler's remarks about odd escapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source, path)


class TokenCounts(msgspec.Struct):
    """How often each token's text occurs, and on how many lines there is code."""

    texts: Counter[str]
    code_lines: int


def count_tokens(source: bytes) -> TokenCounts:
    """Tokenize, leaving out comments and layout."""
    layout = {tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE}
    layout |= {tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    texts: Counter[str] = Counter()
    lines: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type not in layout:
            texts[token.string] += 1
            lines.update(range(token.start[0], token.end[0] + 1))
    return TokenCounts(texts, len(lines))


def entropy(counts: Counter[str]) -> float:
    """Shannon's, in bits: how unpredictable the next token is."""
    total = counts.total()
    return math.fsum(-count / total * math.log2(count / total) for count in counts.values())


def measure_functions(tree: ast.AST) -> Iterator[FunctionMetrics]:
    """Every function, wherever it is nested."""
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            yield FunctionMetrics(node.name, node.lineno, 1 + branches(node))


def branches(function: ast.AST) -> int:
    """Places where control flow forks, not counting functions inside."""
    found = 0
    todo = list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        if isinstance(node, FUNCTIONS):
            continue
        if isinstance(node, BRANCHES):
            found += 1
        elif isinstance(node, ast.BoolOp):
            found += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            found += 1 + len(node.ifs)
        todo += ast.iter_child_nodes(node)
    return found


def ranking(values: list[tuple[str, float]], top: int) -> list[Ranked]:
    """The ``top`` largest, ties by name."""
    best = sorted(values, key=lambda pair: (-pair[1], pair[0]))[:top]
    return [Ranked(place, value) for place, value in best]

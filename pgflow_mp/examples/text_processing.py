"""A map over a list: every line is normalised and capitalised on its own, then all are summed up.

    python -m pgflow_mp run text_processing
    python -m pgflow_mp run text_processing --input '["  hello   world ", "FOO bar"]'

``normalize`` is a root map: one task per element of the run's input. ``capitalize`` is a map over its
results, and ``summarize`` a single step that receives the whole list, in the order of the input. Type
checkers compare each of them with what it is given: the run's input, an element, the output of a step.
"""

from __future__ import annotations

import msgspec

from pgflow_mp import Flow, output_of

DEFAULT_INPUT = ["  the quick  BROWN fox", "jumps over ", "THE lazy dog  ", "", "and runs\taway"]


class Line(msgspec.Struct):
    """One cleaned line."""

    text: str
    words: int


class Summary(msgspec.Struct):
    """Output of the run."""

    lines: list[str]
    words: int
    longest: str


flow = Flow[list[str]]("text_processing")


@flow.map
def normalize(line: str) -> Line:
    """Collapse white space and lower the case."""
    words = line.lower().split()
    return Line(text=" ".join(words), words=len(words))


@flow.map(over=normalize)
def capitalize(line: Line) -> Line:
    """Start every word with a capital letter."""
    return Line(text=" ".join(word.capitalize() for word in line.text.split()), words=line.words)


@flow.step
def summarize(lines: list[Line] = output_of(capitalize)) -> Summary:
    """Put the lines together again."""
    texts = [line.text for line in lines]
    return Summary(
        lines=texts,
        words=sum(line.words for line in lines),
        longest=max(texts, key=len, default=""),
    )

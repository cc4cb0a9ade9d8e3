"""YAML as plain data: the scalars of JSON, mappings and lists; nothing that makes objects or grows.

Read from the parser's events, so that no constructor of PyYAML is ever called. Plain words mean what YAML 1.2
says: ``yes``, ``on`` and ``1:30`` are texts. Aliases are followed as far as they do not make a document much
larger than it is written.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final

from pgflow_mp.values.datatexts import Document, Path, Unreadable, shown

DEPTH: Final = 100
"""Levels that a document may have."""
REPEATED: Final = 10_000
"""Values that all aliases of a document may stand for together."""
_LINES_KNOWN: Final = 4
_WORDS: Final[dict[str, Any]] = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+", re.ASCII)
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NO_NUMBER: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class NoYamlReader(Exception):
    """PyYAML is not installed."""


def read_yaml(text: str) -> Document:
    """The one document in a YAML text. Raises Unreadable, and NoYamlReader without PyYAML."""
    try:
        import yaml
    except ImportError:
        raise NoYamlReader from None
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.take(type(event).__name__, event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "it cannot be read"
        raise Unreadable(f"it is no YAML: {what}", None if mark is None else mark.line + 1) from None
    except yaml.YAMLError as error:  # a character that YAML has no place for
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        raise Unreadable(f"it is no YAML: {getattr(error, 'reason', None) or error}", line) from None
    return Document(builder.value, builder.line_of)


@dataclass
class _Open:
    """A mapping or list whose end has not come; ``size``: values in it and in what it holds."""

    value: Any
    anchor: str | None
    line: int
    size: int = 1
    key: str | None = None


@dataclass
class _Builder:
    """Makes data of events, one after the other."""

    value: Any = None
    _open: list[_Open] = field(default_factory=list)
    _known: dict[str, tuple[Any, int]] = field(default_factory=dict)
    _lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    _repeated: int = 0
    _documents: int = 0

    def take(self, kind: str, event: Any) -> None:
        """The next event."""
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise Unreadable("it has a second document", line, hint="One flow is one file.")
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._check_tag(event, line)
            if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
                raise Unreadable("a key of a mapping is no text", line)
            if len(self._open) == DEPTH:
                raise Unreadable(f"it is nested more than {DEPTH} levels deep", line)
            self._note_line(line)
            self._open.append(_Open({} if kind[0] == "M" else [], event.anchor, line))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            done = self._open.pop()
            if done.anchor is not None:
                self._known[done.anchor] = (done.value, done.size)
            self._put(done.value, done.size, done.line)
        elif kind == "ScalarEvent":
            self._scalar(event, line)
        elif kind == "AliasEvent":
            self._alias(event.anchor, line)

    def line_of(self, path: Path) -> int | None:
        """Where a part begins, or what holds it."""
        way = tuple(path[:_LINES_KNOWN])
        while way and way not in self._lines:
            way = way[:-1]
        return self._lines.get(way)

    def _scalar(self, event: Any, line: int) -> None:
        self._check_tag(event, line)
        plain = event.style in (None, "")
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self._key(top, event.value, line, plain=plain)
            return
        value = _meaning(event.value, line) if plain else event.value
        if event.anchor is not None:
            self._known[event.anchor] = (value, 1)
        self._note_line(line)
        self._put(value, 1, line)

    def _key(self, top: _Open, key: str, line: int, *, plain: bool) -> None:
        if plain and key == "<<":
            raise Unreadable(
                "merge keys (<<) are not read", line, hint="Options of all steps belong to the flow itself."
            )
        if plain and not isinstance(_meaning(key, line), str):
            raise Unreadable(f"the key {shown(key)} of a mapping is no text", line, hint="Put it in quotes.")
        if key in top.value:
            raise Unreadable(f"a mapping has the key {shown(key)} twice", line)
        top.key = key
        self._note_line(line)

    def _alias(self, anchor: str, line: int) -> None:
        if any(each.anchor == anchor for each in self._open):
            raise Unreadable(f"what is called &{anchor} holds itself", line)
        if anchor not in self._known:
            raise Unreadable(f"there is no &{anchor} before this *{anchor}", line)
        value, size = self._known[anchor]
        self._repeated += size
        if self._repeated > REPEATED:
            raise Unreadable(f"its aliases stand for more than {REPEATED:,} values", line)
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise Unreadable("an alias cannot be a key", line)
        self._put(value, size, line)

    def _put(self, value: Any, size: int, line: int) -> None:
        if not self._open:
            self.value = value
            return
        top = self._open[-1]
        top.size += size
        if isinstance(top.value, dict):
            top.value[top.key] = value
            top.key = None
        else:
            top.value.append(value)

    def _note_line(self, line: int) -> None:
        if len(self._open) <= _LINES_KNOWN:
            way = tuple(
                str(each.key) if isinstance(each.value, dict) else len(each.value) for each in self._open
            )
            self._lines.setdefault(way, line)

    def _check_tag(self, event: Any, line: int) -> None:
        if event.tag not in (None, "!"):
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            raise Unreadable(f"it has the tag {shown(tag)}: only plain data is read", line)


def _meaning(word: str, line: int) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    if _LEADING_ZERO.fullmatch(word):
        raise Unreadable(
            f"the number {shown(word)} begins with 0", line, hint="Leave the 0 out, or put it in quotes."
        )
    if _NO_NUMBER.fullmatch(word):
        raise Unreadable(
            f"{word} is not a number that JSON has", line, hint="If it is a text, put it in quotes."
        )
    if _INTEGER.fullmatch(word):
        try:
            return int(word)
        except ValueError:
            raise Unreadable("it has a number of too many digits", line) from None
    if _FLOAT.fullmatch(word):
        value = float(word)
        if math.isinf(value):
            raise Unreadable(f"the number {shown(word)} is too large", line)
        return value
    return word

"""Outputs of parents that are too large for one JSON document, read page by page by the process in need.

A handler that asks for ``Iterable[T]`` or ``Sequence[T]`` gets Outputs, which hold a page or two of them at
a time; one that asks for a list gets a list, made page by page; anything else is made of the whole text.
"""

from __future__ import annotations

import collections.abc
import re
import threading
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, overload

import msgspec

from pgflow_mp.flows.annotations import plain
from pgflow_mp.flows.page_reader import Page
from pgflow_mp.values import reading

if TYPE_CHECKING:
    from pgflow_mp.flows.context import Context

T = TypeVar("T")
Decode = Callable[[Any], Any]

_LAZY: Final = frozenset(
    {
        collections.abc.Iterable,
        collections.abc.Iterator,
        collections.abc.Collection,
        collections.abc.Container,
        collections.abc.Reversible,
        collections.abc.Sequence,
        collections.abc.Sized,
    }
)
_IN_A_PAGE: Final = re.compile(r"\$\[(\d+)\]")
_split: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


ReadPage = Callable[[int], Page]
"""The page that holds this item."""


class Form(NamedTuple):
    """What a map's outputs become: T of ``Sequence[T]`` or ``list[T]``; ``is_list``: the latter."""

    item: Any
    is_list: bool
    is_iterator: bool = False

    @classmethod
    def of(cls, annotation: Any) -> Form | None:
        """None for an annotation that is satisfied by the whole text only."""
        annotation = _only(annotation)
        if annotation in (Any, object):
            return cls(Any, True)
        kind = typing.get_origin(annotation) or annotation
        (item,) = (*typing.get_args(annotation), Any)[:1]
        if kind in _LAZY:
            return cls(Any if item is object else item, False, kind is collections.abc.Iterator)
        return cls(item, True) if kind is list else None


def _only(annotation: Any) -> Any:
    """The type of an annotation, also of an optional one; limits of its length are left where they are."""
    if any(isinstance(each, msgspec.Meta) for each in getattr(annotation, "__metadata__", ())):
        return annotation
    annotation = plain(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        some = [arm for arm in typing.get_args(annotation) if arm is not types.NoneType]
        return _only(some[0]) if len(some) == 1 else annotation
    return annotation


class Outputs(Sequence[T]):
    """The outputs of a map in index order, read as they are looked at, again each time.

    Elements are made anew whenever they are read: a change to one is not kept. Slices, copies and pickles are
    lists. Threads may share it.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, items: int, read: ReadPage, decode_page: Callable[[Page], list[T]], decode: Decode
    ) -> None:
        self._items = items
        self._read = read
        self._decode_page = decode_page
        self._decode = decode
        self._lock = threading.Lock()
        self._kept: tuple[Page, list[msgspec.Raw]] | None = None

    def __len__(self) -> int:
        return self._items

    def __iter__(self) -> Iterator[T]:
        at = 0
        while at < self._items:
            page = self._read(at)
            elements, skipped, at = self._decode_page(page), at - page.first, page.end
            del page
            elements.reverse()
            if skipped:
                del elements[-skipped:]
            while elements:
                yield elements.pop()  # which leaves it to its user alone

    def __reversed__(self) -> Iterator[T]:
        end = self._items
        while end > 0:
            page, _ = self._ending(end)
            elements = self._decode_page(page)[: end - page.first]
            end = page.first
            while elements:
                yield elements.pop()

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return self._slice(range(*index.indices(self._items)))
        position = range(self._items)[index]
        page, raw = self._holding(position)
        return self._decode(raw[position - page.first])  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Outputs | list):
            return len(self) == len(other) and all(
                mine == theirs for mine, theirs in zip(self, other, strict=True)
            )
        return NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __repr__(self) -> str:
        return f"<{self._items} outputs>"

    def _slice(self, wanted: range) -> list[T]:
        if wanted.step < 0:
            return self._slice(wanted[::-1])[::-1]
        return [self[index] for index in wanted]

    def _holding(self, index: int) -> tuple[Page, list[msgspec.Raw]]:
        """The page of an item, and its elements; the latest is kept."""
        with self._lock:
            kept = self._kept
            if kept is None or not kept[0].first <= index < kept[0].end:
                backwards = kept is not None and index == kept[0].first - 1
                self._kept = None
                kept = self._kept = self._ending(index + 1) if backwards else _parts(self._read(index))
            return kept

    def _ending(self, end: int) -> tuple[Page, list[msgspec.Raw]]:
        """A page that holds the item before ``end``, and as many before that as a page can."""
        first = max(0, end - 1000)
        page = self._read(first)
        while page.end < end:
            first = max((first + end) // 2, page.end)
            page = self._read(first)
        return _parts(page)


def _parts(page: Page) -> tuple[Page, list[msgspec.Raw]]:
    return page, _split(page.body)


def reader(
    annotation: Any, whole: Decode, mismatch: Callable[[str], Exception]
) -> Callable[[Context, str], Any]:
    """A function (context, parent) to what ``annotation`` asks for.

    ``whole`` decodes JSON text to that; ``mismatch`` is the error for an element that does not fit.
    """
    form = Form.of(annotation)
    if form is None:
        return lambda ctx, parent: whole(text_of(ctx, parent))
    decode_page = _page_decoder(form.item, mismatch)
    decode_element = _element_decoder(form.item, mismatch)

    def read(ctx: Context, parent: str) -> Any:
        items = (ctx.paged or {})[parent]
        if items is None:
            return whole(text_of(ctx, parent))
        outputs: Outputs[Any] = Outputs(items, _pages(ctx, parent), decode_page, decode_element)
        if form.is_list:
            return _as_list(outputs)
        return iter(outputs) if form.is_iterator else outputs

    return read


def mapping_reader(
    annotation: Any, whole: Decode, mismatch: Callable[[str], Exception]
) -> Callable[[Context, bytes], Any]:
    """A function (context, JSON of the other parents) to the mapping of all parents' outputs."""
    annotation = _only(annotation)
    kind = typing.get_origin(annotation) or annotation
    key, value = (*typing.get_args(annotation), str, Any)[:2] if typing.get_args(annotation) else (str, Any)
    if kind is not Any and (kind not in (dict, collections.abc.Mapping) or key not in (str, Any)):
        return lambda ctx, raw: whole(_whole_object(ctx, raw))
    decode = reading.decoder(dict.__class_getitem__((str, value)))
    read = reader(value, reading.decoder(value), mismatch)

    def made(ctx: Context, raw: bytes) -> Any:
        try:
            found = {**decode(raw), **{parent: read(ctx, parent) for parent in ctx.paged or ()}}
        except (msgspec.DecodeError, RecursionError) as error:
            raise mismatch(str(error)) from None
        return types.MappingProxyType(found) if kind is Any else found

    return made


def lazily(ctx: Context) -> dict[str, Any]:
    """All that a task's input lacks, by parent."""
    read = reader(Sequence, reading.decoder(Any), ValueError)
    return {parent: read(ctx, parent) for parent in ctx.paged or ()}


def text_of(ctx: Context, parent: str) -> bytearray:
    """A parent's whole output as JSON."""
    items = (ctx.paged or {})[parent]
    read = _pages(ctx, parent)
    if items is None:
        return read(0).body
    text, at = bytearray(b"["), 0
    while at < items:
        page = read(at)
        text += memoryview(page.body)[1:-1]
        text += b","
        at = page.end
    text[-1:] = b"]" if items else b"[]"
    return text


def _whole_object(ctx: Context, raw: bytes) -> bytearray:
    text = bytearray(raw.rstrip()[:-1])
    for parent in ctx.paged or ():
        if len(text) > 1:
            text += b","
        text += msgspec.json.encode(parent) + b":"
        text += text_of(ctx, parent)
    text += b"}"
    return text


def _as_list(outputs: Outputs[T]) -> list[T]:
    made: list[T] = []
    while len(made) < len(outputs):
        page = outputs._read(len(made))
        made += outputs._decode_page(page)[len(made) - page.first :]
    return made


def _pages(ctx: Context, parent: str) -> ReadPage:
    reader, run_id = ctx.runtime.outputs, ctx.run_id
    return lambda index: reader.read(run_id, parent, index)


def _page_decoder(item: Any, mismatch: Callable[[str], Exception]) -> Callable[[Page], list[Any]]:
    decode = reading.decoder(list.__class_getitem__(item))

    def decode_page(page: Page) -> list[Any]:
        try:
            return decode(page.body)  # type: ignore[no-any-return]
        except (msgspec.DecodeError, RecursionError) as error:
            raise mismatch(_IN_A_PAGE.sub(_place_in(page), str(error), count=1)) from None

    return decode_page


def _place_in(page: Page) -> Callable[[re.Match[str]], str]:
    return lambda found: f"$[{int(found[1]) + page.first}]"


def _element_decoder(item: Any, mismatch: Callable[[str], Exception]) -> Decode:
    decode = reading.decoder(item)

    def decode_element(raw: msgspec.Raw) -> Any:
        try:
            return decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise mismatch(str(error)) from None

    return decode_element

"""Items that have ended, as Python sees them: what went in and what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pgflow_mp.db.reads.finished import EndedItems
from pgflow_mp.flows.finished_item import FinishedItem


def finished_items(
    ended: EndedItems,
    read_outputs: Callable[[bytes], list[Any]] = msgspec.json.decode,
    read_inputs: Callable[[bytes], list[Any]] = msgspec.json.decode,
) -> Iterator[FinishedItem[Any, Any]]:
    """Each of them; what is read is a JSON array."""
    outputs = read_outputs(ended.outputs)
    inputs = None if ended.inputs is None else read_inputs(ended.inputs)
    seconds = ended.seconds
    for begin, end in ended.spans:
        for at in range(begin - ended.first_index, end - ended.first_index):
            yield FinishedItem(
                ended.first_index + at,
                None if inputs is None else inputs[at],
                outputs[at],
                ended.error,
                seconds,
                "completed" if ended.status == "completed" else "failed",
                ended.attempts,
            )

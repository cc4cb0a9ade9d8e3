"""What crosses the process boundary between the worker and its lanes.

Everything is a msgspec.Struct encoded as msgpack, so that a chunk is one bytes object and nothing is
ever unpickled that a handler produced. Payloads inside are raw JSON bytes which the parent never decodes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import msgspec

LOAD_TIMEOUT: Final = 300.0
"""Seconds that a process may take to import its target, unless told otherwise."""
PRELOAD_FLOW: Final = "flow"
"""Among the names of what is to be preloaded: the target itself."""
_MAP_OF_TWO: Final = b"\x82"


class Kind(IntEnum):
    """How one item of a chunk ended (``Outcome.kind``)."""

    COMPLETED = 0
    FAILED = 1  # a retry is allowed
    FAILED_FOR_GOOD = 2
    NOT_RUN = 3  # handed back, no attempt charged


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


class Setup(Message):
    """Sent once per lane: what to load and how to behave.

    ``target`` is what pgflow_mp.loading understands, several of them one a line; ``flows`` limits it by
    slug (empty: every flow there). ``main_path`` is the script that the target ``__main__`` stands for.
    ``threads`` is the number of threads that numeric libraries may use per lane (0: leave them alone),
    ``open_files`` the soft limit of descriptors that handlers get (None: as it is). Artifacts are kept in
    ``artifacts``, else where their flow says, else in ``artifacts_beside``, under the ``installation``'s id.
    ``code``: digests that modules must have where they are imported elsewhere (others may be any),
    ``version`` of this package ("": any). With ``job`` the target is a function for background jobs.
    ``shipped`` is a flow itself, in the place of a target to import (loading/shipping.py). ``contents`` are
    what the flow files among the targets say, by path, and ``handlers`` what these may name.
    """

    target: str
    flows: list[str] = []
    dsn: str | None = None
    worker_config: dict[str, Any] = {}
    sys_path: list[str] = []
    main_path: str | None = None
    threads: int = 1
    log_level: str = "info"
    log_format: str = "text"
    open_files: int | None = None
    artifacts: str | None = None
    artifacts_beside: str | None = None
    installation: str = "local"
    code: dict[str, str] = {}
    version: str = ""
    job: bool = False
    shipped: bytes = b""
    contents: dict[str, bytes] = {}
    handlers: list[str] = []


class CodeFile(Message):
    """A module of a flow, where it was imported from: ``digest`` is the SHA-256 of its file then, in hex."""

    module: str
    path: str
    digest: str


class Item(Message):
    """One task. ``run`` and ``step`` are positions in the chunk's lists; ``input`` is raw JSON.

    ``paged`` are parents whose outputs are too large to be part of it, each with its items (None: one
    value); the process that runs the task reads them itself.
    """

    index: int
    attempt: int
    msg_id: int
    run: int
    step: int
    input: bytes
    flow_input: bytes | None
    paged: dict[str, int | None] | None = None


Address = tuple[str, str, int, int]
"""Whose an item of a chunk is: run, step slug, position of the step in the chunk's timeouts, task index."""


class Chunk(Message, tag=0):
    """What a lane receives at once; transport only. ``seq`` is the sender's name for it.

    ``batch`` is the most items that a handler of batches takes at once (0: what its step says).
    """

    seq: int
    flow: str
    runs: list[str]
    steps: list[str]
    items: list[Item]
    batch: int = 0

    @property
    def size(self) -> int:
        """Items."""
        return len(self.items)

    def locate(self, position: int) -> Address:
        """Whose the item at ``position`` is."""
        item = self.items[position]
        return self.runs[item.run], self.steps[item.step], item.step, item.index

    def part(self, first: int, end: int) -> Chunk:
        """Items ``first``..``end`` - 1 as a chunk of the same name."""
        return Chunk(self.seq, self.flow, self.runs, self.steps, self.items[first:end], self.batch)


class Segment(Message):
    """``count`` elements of a page, from the one at position ``first`` of it.

    ``page`` is the page's whole JSON array; ``page_id`` names it, so that it is decoded once.
    """

    page: bytes
    page_id: int
    first: int
    count: int


class RangeChunk(Message, tag=1):
    """What a lane receives of a range: items ``first_index``.. of one step; else as a Chunk.

    The segments hold ``count`` elements together.
    """

    seq: int
    flow: str
    run: str
    step: str
    first_index: int
    count: int
    segments: list[Segment]
    batch: int = 0

    @property
    def size(self) -> int:
        """Items."""
        return self.count

    @property
    def steps(self) -> list[str]:
        """The one step."""
        return [self.step]

    def locate(self, position: int) -> Address:
        """Whose the item at ``position`` is."""
        if not 0 <= position < self.count:
            raise IndexError(f"a chunk of {self.count} items has none at {position}")
        return self.run, self.step, 0, self.first_index + position

    def part(self, first: int, end: int) -> RangeChunk:
        """Items ``first``..``end`` - 1 as a chunk of the same name."""
        segments: list[Segment] = []
        at = 0
        for segment in self.segments:
            low, high = max(first - at, 0), min(end - at, segment.count)
            if low < high:
                segments.append(Segment(segment.page, segment.page_id, segment.first + low, high - low))
            at += segment.count
        index = self.first_index + first
        return RangeChunk(self.seq, self.flow, self.run, self.step, index, end - first, segments, self.batch)


AnyChunk = Chunk | RangeChunk
"""What executors take; they ask both for ``seq``, ``size``, ``steps``, ``locate``, ``part``."""


class Outcome(Message):
    """How the item at ``position`` of its chunk ended, after ``seconds`` in the lane.

    ``kind`` is a Kind. ``body`` is the output as raw JSON (COMPLETED), the complete error text in UTF-8
    (FAILED, FAILED_FOR_GOOD), or empty (NOT_RUN).
    """

    position: int
    kind: int
    body: bytes
    seconds: float


class StepInfo(Message):
    """What the parent knows about a step. ``batch``: items that its handler takes at once, 0: one by one."""

    slug: str
    step_type: str
    dependencies: list[str]
    wants_flow_input: bool
    batch: int = 0


class FlowInfo(Message):
    """What the parent knows about a flow; ``shape`` is JSON (contract: worker section 6.1).

    ``queue_mode``: "flow" for one queue, "step" for one a step. ``artifacts``: where the flow keeps them;
    ``makes_artifacts``: some step says that it returns any.
    """

    slug: str
    queue_mode: str
    shape: bytes
    steps: list[StepInfo]
    artifacts: str | None = None
    makes_artifacts: bool = False


class Hello(Message):
    """A lane's first word: the flows it can run, or why it cannot.

    ``preloaded`` says whether the module was imported once for all lanes; if not, ``why_not`` says why.
    From elsewhere it tells the ``version`` of this package there, on which ``host``, and the flows' ``code``.
    """

    flows: list[FlowInfo]
    error: str
    hint: str
    seconds: float
    preloaded: bool
    why_not: str
    version: str = ""
    host: str = ""
    code: list[CodeFile] = []


class RunLimits(Message):
    """What a process of somebody else's keeps to while it runs a chunk: seconds per step, bytes of memory.

    Once it has had to give an item up it is of no use: it leaves by itself after ``leave`` seconds (None: it
    is ended by others).
    """

    timeouts: list[float | None]
    max_memory: int | None = None
    leave: float | None = None


class Remark(Message):
    """What a process says of itself, besides the outcomes of a chunk.

    ``refused``: why it runs nothing at all: it has other code, or none. ``given_up`` (position, items): what
    it was running when it gave up, ``cause`` why (a Cause); it is spoiled then, and to be ended. One item is
    charged by its outcome, of several the halves are to be run. ``address`` is the engine's name for it.
    """

    refused: str = ""
    given_up: tuple[int, int] | None = None
    cause: str = ""
    address: str = ""


class StartTrouble(msgspec.Struct, gc=False):
    """In the place of a chunk's outcomes: none of it was run, since an on_start function of its flow failed.

    ``text`` names the function on its first line; a traceback may follow. Encoded as a map, as no answer is.
    """

    flow: str
    text: str


encode: Final = msgspec.msgpack.Encoder().encode
decode_chunk: Final = msgspec.msgpack.Decoder(AnyChunk).decode
decode_outcome: Final = msgspec.msgpack.Decoder(Outcome).decode
decode_outcomes: Final = msgspec.msgpack.Decoder(list[Outcome]).decode
decode_remark: Final = msgspec.msgpack.Decoder(Remark).decode
decode_limits: Final = msgspec.msgpack.Decoder(RunLimits).decode
decode_hello: Final = msgspec.msgpack.Decoder(Hello).decode
_decode_trouble: Final = msgspec.msgpack.Decoder(StartTrouble).decode


def trouble_in(answer: bytes) -> StartTrouble | None:
    """What an answer says instead of outcomes, which are arrays."""
    return _decode_trouble(answer) if answer[:1] == _MAP_OF_TWO else None

"""The shared memory of a lane: which item it runs, since when, and what it has finished.

A lane owns three pieces: a control page, and two buffers that take turns, one per chunk (a lane holds
at most two chunks). The child appends to the chunk's buffer what says how an item ended (``endings``), and
then publishes count and length with one aligned 8-byte store: no system call, nothing to lock, and nothing
lost when the child is killed. The parent reads whenever it likes. Nothing has a name in the file system: the
pieces are memfds (elsewhere: unlinked temporary files) whose descriptors travel with the child's start.

Ordering: data is written before the word that publishes it. x86 keeps stores in order; for the others
``_fence`` passes through a lock, whose release and acquire are barriers.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any, Final

from pgflow_mp.executors.lanes.stack_dumps import StackFile
from pgflow_mp.executors.lanes.start_note import StartNote
from pgflow_mp.executors.lanes.tally_words import TallyReader, TallyWriter
from pgflow_mp.executors.tallies import Tally

BUFFERS: Final = 2
CONTROL_SIZE: Final = 4096
INITIAL_SIZE: Final = 64 * 1024
KEPT_SIZE: Final = 1024 * 1024  # a buffer that grew beyond this is cut back for its next chunk

# The control page as 64-bit words: the child writes the first 32, the parent those after them.
_CHUNK, _RUNNING, _STARTED = 0, 1, 2  # ordinal of the chunk, item token, ns
_FINISHED, _WIDTH = 3, 4  # items of the chunks that are over, items that run at once
# One word each per buffer: ordinal of its chunk; count and length; ns that completed items of a range took.
_BUFFER_CHUNK, _BUFFER_FILLED, _BUFFER_SPENT = 8, 16, 24
_SHUTDOWN, _SKIP = 32, 33

_LENGTH_BITS: Final = 40  # count (24 bits) and length in bytes (40 bits) share one word, so they agree
_LENGTH_MASK: Final = (1 << _LENGTH_BITS) - 1
MAX_ITEMS: Final = (1 << 24) - 1
_POSITION_BITS: Final = 24

_weakly_ordered: Final = os.uname().machine.lower() not in ("x86_64", "amd64", "i386", "i686")
_barrier: Final = threading.Lock()
_barrier.acquire()


def _fence() -> None:
    """No store after this is seen before a store ahead of it (and likewise for loads)."""
    if _weakly_ordered:
        _barrier.release()
        _barrier.acquire()


class SharedFile:
    """Anonymous shared memory that can be sent to a child while it is being started."""

    def __init__(self, size: int, name: str = "pgflow_mp") -> None:
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create(name, os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile(prefix=name) as file:
                self.fd = os.dup(file.fileno())
        os.ftruncate(self.fd, size)

    @classmethod
    def _received(cls, duplicate: Any) -> SharedFile:
        self = cls.__new__(cls)
        self.fd = duplicate.detach()
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            raise TypeError("Shared memory can only be handed to a process that is being started")
        return SharedFile._received, (reduction.DupFd(self.fd),)

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, slots=True)
class SlotFiles:
    """The shared memory of one lane process, sent to it at its start. ``trace`` is faulthandler's."""

    control: SharedFile
    buffers: tuple[SharedFile, ...]
    trace: SharedFile

    @classmethod
    def create(cls) -> SlotFiles:
        return cls(
            SharedFile(CONTROL_SIZE),
            tuple(SharedFile(INITIAL_SIZE) for _ in range(BUFFERS)),
            SharedFile(0),
        )

    def close(self) -> None:
        for file in (self.control, *self.buffers, self.trace):
            file.close()


class SlotWriter:
    """The child's side. One chunk at a time: begin(ordinal), then per item start() and finish(), then end().

    Of an item of a range that completes, complete() takes the place of finish(). Both are run a million times
    a second: nothing is done in them that the parent can work out for itself.
    """

    def __init__(self, files: SlotFiles) -> None:
        self._files = files.buffers
        self._maps = [mmap.mmap(file.fd, INITIAL_SIZE) for file in self._files]
        self._page = mmap.mmap(files.control.fd, CONTROL_SIZE)
        self._words = memoryview(self._page).cast("Q")
        self.start_note = StartNote(self._page, self._words, _fence)
        self.tally = TallyWriter(self._words)
        self._buffer = 0
        self._map = self._maps[0]
        self._ordinal = 0
        self._base = 0
        self._count = 0
        self._length = 0
        self._room = 0
        self._filled, self._spent = _BUFFER_FILLED, _BUFFER_SPENT

    def begin(self, ordinal: int) -> None:
        """Take over the buffer of chunk ``ordinal`` (from 1); the parent has emptied it by contract."""
        words, buffer = self._words, ordinal % BUFFERS
        self._buffer, self._ordinal, self._base = buffer, ordinal, (ordinal << _POSITION_BITS) + 1
        self._filled, self._spent = _BUFFER_FILLED + buffer, _BUFFER_SPENT + buffer
        self._count = self._length = 0
        if len(self._maps[buffer]) > KEPT_SIZE:
            self._remap(buffer, INITIAL_SIZE)
        self._map = self._maps[buffer]
        self._room = len(self._map)
        words[self._filled] = words[self._spent] = 0
        self.tally.begin(buffer)
        words[_WIDTH] = 1
        _fence()
        words[_BUFFER_CHUNK + buffer] = ordinal
        words[_CHUNK] = ordinal

    def start(self, position: int, now_ns: int) -> bool:
        """Publish that the item at ``position`` runs since ``now_ns`` (time.monotonic_ns).

        False if the parent has asked for it, and all after it, to be handed back. It is asked afterwards: an
        item that is announced after such a request is seen not to have run (``LaneProcess.relieve``).
        """
        words = self._words
        words[_STARTED] = now_ns
        if _weakly_ordered:
            _fence()
        words[_RUNNING] = self._base + position
        if _weakly_ordered:
            _fence()
        return words[_SKIP] < self._ordinal

    def widen(self, width: int) -> None:
        """So many items run at once from the next start() on: a batch."""
        self._words[_WIDTH] = width

    def finish(self, data: bytes, items: int = 1) -> None:
        """Append what says how the running items ended (of NOT_RUN: all that are left) and publish it."""
        begin = self._length
        end = begin + len(data)
        if end > self._room:
            self._grow(end)
        self._map[begin:end] = data
        self._length = end
        self._count += items
        words = self._words
        if _weakly_ordered:
            _fence()
        words[self._filled] = self._count << _LENGTH_BITS | end
        words[_RUNNING] = 0

    def complete(self, body: bytes) -> None:
        """As finish(), for the output of the running item of a range. It seems to run on until the next one
        starts, but counts as ended.
        """
        begin = self._length
        end = begin + len(body) + 1
        if end > self._room:
            self._grow(end)
        self._map[begin:end] = body + b","
        self._length = end
        self._count = count = self._count + 1
        if _weakly_ordered:
            _fence()
        self._words[self._filled] = count << _LENGTH_BITS | end

    def spend(self, spent_ns: int) -> None:
        """What all items of a range that completed took so far, or nearly so."""
        self._words[self._spent] = spent_ns

    def end(self) -> None:
        """The chunk is over."""
        words = self._words
        words[_RUNNING] = 0
        words[_CHUNK] = 0
        words[_FINISHED] += self._count

    def _grow(self, size: int) -> None:
        self._remap(self._buffer, max(size, 2 * self._room))
        self._map = self._maps[self._buffer]
        self._room = len(self._map)

    def _remap(self, buffer: int, size: int) -> None:
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(self._files[buffer].fd, size)
        old, self._maps[buffer] = self._maps[buffer], mmap.mmap(self._files[buffer].fd, size)
        old.close()

    @property
    def skipped(self) -> int:
        """Chunks up to this ordinal are to be handed back from their next item on."""
        return self._words[_SKIP]

    def is_set(self) -> bool:
        """Whether the worker shuts down (the shape of multiprocessing.Event, for Context.shutdown)."""
        return bool(self._words[_SHUTDOWN])


@dataclass(frozen=True, slots=True)
class Running:
    """The item a lane is executing: its chunk's ordinal, its position, and time.monotonic_ns at its start.

    ``width``: how many run at once, from that one on.
    """

    ordinal: int
    position: int
    started_ns: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What a buffer holds up to ``count`` items and ``length`` bytes: ``data`` since it was last asked.

    ``spent``: nanoseconds that items of a range which completed by then took together.
    """

    data: bytes
    count: int
    length: int
    spent: int


class SlotReader:
    """The parent's side. Not thread-safe: the lane's lock guards it."""

    def __init__(self, files: SlotFiles) -> None:
        self._files = files
        self._maps = [mmap.mmap(file.fd, INITIAL_SIZE) for file in files.buffers]
        self._page = mmap.mmap(files.control.fd, CONTROL_SIZE)
        self._words = memoryview(self._page).cast("Q")
        self.start_note = StartNote(self._page, self._words, _fence)
        self.stack = StackFile(files.control.fd, CONTROL_SIZE)

    def take(self, ordinal: int, count: int, length: int) -> Taken | None:
        """What chunk ``ordinal`` has beyond ``count`` items (``length`` bytes); None for nothing."""
        buffer = ordinal % BUFFERS
        words = self._words
        if words[_BUFFER_CHUNK + buffer] != ordinal:
            return None
        _fence()
        filled = words[_BUFFER_FILLED + buffer]
        new_count, new_length = filled >> _LENGTH_BITS, filled & _LENGTH_MASK
        if new_count <= count:
            return None
        _fence()
        if new_length > len(self._maps[buffer]):
            self._maps[buffer].close()
            self._maps[buffer] = mmap.mmap(self._files.buffers[buffer].fd, self._files.buffers[buffer].size())
        data = self._maps[buffer][length:new_length]
        return Taken(data, new_count, new_length, words[_BUFFER_SPENT + buffer])

    def tally(self, ordinal: int, reader: TallyReader) -> Tally | None:
        """How long items of chunk ``ordinal`` took, of a range, since its ``reader`` was last asked."""
        buffer = ordinal % BUFFERS
        if self._words[_BUFFER_CHUNK + buffer] != ordinal:
            return None
        return reader.take(self._words, buffer)

    def running(self) -> Running | None:
        """The item being executed, None between items: one may be announced yet that has ended."""
        words = self._words
        for _ in range(100):
            token = words[_RUNNING]
            _fence()
            started, width = words[_STARTED], words[_WIDTH]
            _fence()
            if words[_RUNNING] == token:
                break
        else:  # items of microseconds: whichever runs, it has only just begun
            return None
        if not token:
            return None
        ordinal, position = token >> _POSITION_BITS, (token & ((1 << _POSITION_BITS) - 1)) - 1
        if position < words[_BUFFER_FILLED + ordinal % BUFFERS] >> _LENGTH_BITS:
            return None
        return Running(ordinal, position, started, max(1, width))

    @property
    def finished(self) -> int:
        """Items this process has finished since it started; less for a moment when a chunk ends."""
        words = self._words
        finished, ordinal = words[_FINISHED], words[_CHUNK]
        if ordinal:
            finished += words[_BUFFER_FILLED + ordinal % BUFFERS] >> _LENGTH_BITS
        return finished

    def skip(self, ordinal: int) -> None:
        """Ask for every item of chunks up to ``ordinal`` that has not begun to be handed back."""
        self._words[_SKIP] = max(self._words[_SKIP], ordinal)

    def shut_down(self) -> None:
        """Let handlers that look at ctx.shutdown know."""
        self._words[_SHUTDOWN] = 1

    def trace(self, limit: int = 8192) -> str:
        """What faulthandler wrote when the process died, at most ``limit`` bytes of it."""
        text = os.pread(self._files.trace.fd, limit, 0)
        return text.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Release the memory. The reader is not used afterwards."""
        self._words.release()
        self._page.close()
        for mapped in self._maps:
            mapped.close()
        self._files.close()

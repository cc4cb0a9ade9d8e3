"""Count the primes below a billion in two independent ways, and check one against the other.

    python -m pgflow_mp run primes
    python -m pgflow_mp run primes --input '{"below": 20000000, "segment": 500000}'

``segments`` cuts the numbers into pieces, ``sieve`` counts the primes of one piece on one core, and
``second_opinion`` meanwhile counts all of them without looking at a single one of the large ones.
``verdict`` fails the run for good if the two disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import isqrt

import msgspec

from pgflow_mp import Flow, PermanentError

DEFAULT_INPUT = {"below": 1_000_000_000, "segment": 1_000_000}


class Task(msgspec.Struct):
    """Input of the run. ``segment`` numbers are one item of the map."""

    below: int
    segment: int = 1_000_000


class Segment(msgspec.Struct):
    """The numbers from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int


class Verdict(msgspec.Struct):
    """Output of the run."""

    below: int
    primes: int
    segments: int
    densest_segment: int
    sparsest_segment: int


flow = Flow("primes", timeout=300)


@flow.array
def segments(task: Task) -> Iterator[Segment]:
    """One segment per item. An array step may yield its elements."""
    if task.segment < 1:
        raise PermanentError(f"A segment needs at least one number, not {task.segment}")
    for start in range(0, task.below, task.segment):
        yield Segment(start, min(start + task.segment, task.below))


@flow.map(over=segments)
def sieve(segment: Segment) -> int:
    """Count the primes of one segment by crossing out multiples."""
    start, stop = segment.start, segment.stop
    is_prime = bytearray(b"\1") * (stop - start)
    for number in range(start, min(stop, 2)):
        is_prime[number - start] = 0
    for prime in small_primes(below=1 << isqrt(stop).bit_length()):
        if prime * prime >= stop:
            break
        first = max(prime * prime, (start + prime - 1) // prime * prime)
        if first < stop:
            is_prime[first - start :: prime] = bytes((stop - 1 - first) // prime + 1)
    return is_prime.count(1)


@flow.step
def second_opinion(task: Task) -> int:
    """Count all primes at once after Legendre, in about ``below`` ** 0.75 steps.

    ``counts[v]`` is how many numbers in 2..v have survived the sieve by the primes so far. It is kept
    only for the values ``last // i`` that are ever asked for.
    """
    last = task.below - 1
    if last < 2:
        return 0
    root = isqrt(last)
    values = [last // i for i in range(1, root + 1)]
    values += range(values[-1] - 1, 0, -1)
    counts = {value: value - 1 for value in values}
    for prime in range(2, root + 1):
        survivors = counts[prime - 1]
        if counts[prime] == survivors:
            continue
        square = prime * prime
        for value in values:
            if value < square:
                break
            counts[value] -= counts[value // prime] - survivors
    return counts[last]


@flow.step(depends_on=[sieve, second_opinion])
def verdict(sieve: list[int], second_opinion: int, flow_input: Task) -> Verdict:
    """Compare. ``flow_input`` is the run's input, there for every step that asks for it."""
    counted = sum(sieve)
    if counted != second_opinion:
        raise PermanentError(f"The sieve counted {counted} primes, Legendre {second_opinion}")
    return Verdict(
        below=flow_input.below,
        primes=counted,
        segments=len(sieve),
        densest_segment=max(sieve, default=0),
        sparsest_segment=min(sieve, default=0),
    )


@lru_cache(maxsize=8)
def small_primes(below: int) -> list[int]:
    """The primes below a power of two. A process works them out once, not once an item."""
    is_prime = bytearray(b"\0\0") + bytearray(b"\1") * (below - 2)
    for number in range(2, isqrt(below) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes((below - 1 - number * number) // number + 1)
    return [number for number, prime in enumerate(is_prime) if prime]

"""A clock that only moves when it is told to."""

from __future__ import annotations


class FakeClock:
    """Stands in for the module ``time``: ``time()``, ``monotonic()``, ``perf_counter()`` and ``sleep()``.

    ``slept`` lists the pauses that were asked for, in seconds. Give one to ``run_inline`` to see how long
    retries and start delays would have taken; monkeypatch it over a module's ``time`` elsewhere.
    """

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = self._start = start
        self.slept: list[float] = []

    def time(self) -> float:
        """Seconds, as time.time()."""
        return self._now

    def monotonic(self) -> float:
        """The same."""
        return self._now

    def perf_counter(self) -> float:
        """The same."""
        return self._now

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return self._now - self._start

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for less than nothing."""
        if seconds < 0:
            raise ValueError(f"time does not go back ({seconds} s)")
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass at once, and note the pause."""
        self.advance(seconds)
        self.slept.append(seconds)

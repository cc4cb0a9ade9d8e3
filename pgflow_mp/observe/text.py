"""Numbers, times and errors in few words, for lines on a screen."""

from __future__ import annotations

from pgflow_mp.redaction import CONTROL


def duration(seconds: float) -> str:
    """0.4 s, 12.3 s, 4:05, 2:03:04."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def brief(seconds: float) -> str:
    """850 us, 1.2 ms, 340 ms, 3.2 s, 4:05: of an item."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return duration(seconds)


def clock(seconds: float) -> str:
    """0:04, 12:03, 2:03:04, for a number that is counted up or down."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(per_second: float) -> str:
    """12,345/s, 12.3/s; slower ones by the minute or the hour."""
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    if per_second >= 0.95:
        return f"{per_second:.1f}/s"
    if per_second * 60 >= 0.95:
        return f"{per_second * 60:.1f}/min"
    return f"{per_second * 3600:.1f}/h"


def waits(items: int, next_in: float | None) -> str:
    """That so many wait for their next attempt, and for how long."""
    if next_in is None:
        return f"{items:,} wait"
    if next_in < 0.5:
        return f"{items:,} wait, due now"
    return f"{items:,} wait, next in " + (f"{next_in:.0f} s" if next_in < 99.5 else clock(next_in))


def plural(number: int, word: str) -> str:
    """1 item, 1,234 items."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def size(count: int) -> str:
    """123 bytes, 12.3 kB, 4.5 MB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return plural(count, "byte")


def percent(done: int, total: int) -> str:
    """The share of what is done, never 100 % before it is."""
    return f"{min(99, done * 100 // total) if done < total else 100}%" if total else "100%"


def essence(error: str, limit: int = 200, *, beside: tuple[str, int] | None = None) -> str:
    """The one line of an error text that says what happened: the first, or the last of a bare traceback.

    ``beside``: the step and index that the line is shown with, which it need not name again.
    """
    lines = [line for line in error.splitlines() if line.strip()] or ["no error text"]
    line = lines[0]
    if line.startswith("Traceback "):
        line = next((text for text in reversed(lines) if not text.startswith(" ")), lines[-1])
    line = line.strip().removeprefix("pgflow_mp.errors.")
    if beside is not None:
        again = 'step "{}" task {}'.format(*beside)
        line = line.replace(f": {again}: ", ": ", 1).replace(f": {again} ", ": ", 1)
    return shorten(line, limit)


def shorten(text: str, limit: int) -> str:
    """One line of at most ``limit`` characters without control characters."""
    start = text[: 64 * limit]  # of a payload the rest is not looked at
    line = CONTROL.sub(" ", start)
    return line if len(line) <= limit and len(start) == len(text) else line[: limit - 3] + "..."


def shorten_middle(name: str, limit: int) -> str:
    """A name of at most ``limit`` characters that keeps both its ends, where names differ."""
    if len(name) <= limit:
        return name
    end = (limit - 1) // 2
    return f"{name[: limit - 1 - end]}…{name[len(name) - end :]}"

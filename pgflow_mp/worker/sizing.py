"""How many items of a batch the next chunk gets, by what is known of items of its steps. Pure."""

from __future__ import annotations

from pgflow_mp.worker.batches import AnyBatch, ItemTimes
from pgflow_mp.worker.chunks import LARGEST_OUTPUT, SMALLEST, TARGET, chunk_size, whole_batches


class Sizing:
    """Goes by ``times``."""

    def __init__(self, times: ItemTimes) -> None:
        self._times = times

    def mean(self, batch: AnyBatch) -> float | None:
        """Seconds per item; None while that of one of its steps is unknown."""
        of = self._times.of
        if len(batch.steps) == 1:
            return of(batch.flow, batch.steps[0])
        means = [of(batch.flow, step) for step in batch.steps]
        known = [mean for mean in means if mean is not None]
        return sum(known) / len(known) if len(known) == len(means) else None

    def together(self, batch: AnyBatch) -> int:
        """How many of its items a handler takes at once; 0: one by one, or it has several steps."""
        if len(batch.steps) > 1:
            return 0
        size = self._times.batch(batch.flow, batch.steps[0])
        return min(size, batch.limit or size)

    def next_chunk(self, batch: AnyBatch, waiting: int, lanes: int, idle: int) -> tuple[int, float]:
        """Items for the next chunk, at least one, and the seconds that they should take.

        ``waiting`` items of the flow wait for ``lanes`` lanes, of which ``idle`` ones hold nothing.
        """
        if len(batch.steps) > 1:
            return self._of_several_steps(batch, waiting, lanes)
        mean, together = self.mean(batch), self.together(batch)
        if together > 1:
            count = whole_batches(mean, waiting, lanes, idle, together, batch.largest)
        else:
            count = chunk_size(mean, waiting, lanes, batch.largest)
        count = min(count, batch.waiting)
        size = self._times.output_bytes(batch.flow, batch.steps[0])
        if size * count > batch.largest_output:
            count = min(count, max(1, together, int(batch.largest_output / size)))
        return count, count * (mean or TARGET)

    def _of_several_steps(self, batch: AnyBatch, waiting: int, lanes: int) -> tuple[int, float]:
        flow, steps = batch.flow, batch.steps
        means = [self._times.of(flow, step) for step in steps]
        sizes = [self._times.output_bytes(flow, step) for step in steps]
        batches = [max(1, self._times.batch(flow, step)) for step in steps]
        count, seconds, size = 0, 0.0, 0.0
        last, alike = -1, 0  # a batch is not cut short
        for i in range(batch.next, min(len(batch), batch.next + batch.largest)):
            step = batch.item(i).step
            mean = means[step]
            if mean is None:  # unknown: by itself
                return (count, seconds) if count else (1, TARGET)
            enough = seconds + mean > TARGET or (seconds >= SMALLEST and count * 2 * lanes >= waiting)
            if count and enough and (step != last or alike >= batches[step]):
                break
            alike, last = (alike + 1 if step == last and alike < batches[step] else 1), step
            size += sizes[step]
            if count and size > LARGEST_OUTPUT:
                break
            count += 1
            seconds += mean
        return count, seconds

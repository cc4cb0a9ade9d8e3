"""The flow that is seen in the pictures of docs/pictures: some of its items fail, some wait for a retry."""

from __future__ import annotations

import time

from pgflow_mp import Context, Flow

flow = Flow("books", max_attempts=2, base_delay=2)


def use_cpu(seconds: float) -> None:
    """Compute for so long."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(1000))


@flow.map(tolerate=0.2)
def read(book: int, ctx: Context) -> int:
    use_cpu(0.01 + book * 37 % 100 / 4000)
    if book % 97 == 5:
        raise ValueError(f"page {book % 300} cannot be read")
    if book % 41 == 7 and ctx.attempt == 1:
        raise ConnectionError("the scanner does not answer")
    return book * 7 % 500


@flow.map(over=read)
def count_words(pages: int | None) -> int:
    use_cpu(0.004 + (pages or 0) % 50 / 5000)
    return 250 * (pages or 0)


@flow.map(over=count_words)
def find_names(words: int) -> int:
    use_cpu(0.006 + words % 70 / 4000)
    return words // 90


@flow.step(depends_on=[find_names, count_words])
def index(find_names: list[int], count_words: list[int]) -> dict[str, int]:
    return {"books": len(find_names), "names": sum(find_names), "words": sum(count_words)}

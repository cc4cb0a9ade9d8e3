"""Random flows whose items fail until they are mended, retried in all ways: the end is as if none had failed.

Whoever is given a null, or a result of before, computes something else, which is seen in the end.
"""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from .helpers import Db, Row, map_step, step
from .repairing import Repair, begun

SLUGS = "abcdef"


def digest(slug: str, given: Any) -> int:
    return zlib.crc32(f"{slug} {json.dumps(given, sort_keys=True)}".encode()) % 1000


@dataclass
class Graph:
    """Steps with their parents; ``arrays`` are single steps that maps go over."""

    parents: dict[str, list[str]] = field(default_factory=dict)
    maps: set[str] = field(default_factory=set)
    arrays: set[str] = field(default_factory=set)
    definitions: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def some(cls, rng: random.Random) -> Graph:
        graph = cls()
        storages, tolerated, early = {}, {}, []
        for slug in SLUGS[: rng.randint(2, 6)]:
            known = list(graph.parents)
            mode = rng.choice(["fail", "fail", "fail", "skip", "skip-cascade"])
            if not known or rng.random() < 0.6:
                deps = [rng.choice(known)] if known and rng.random() < 0.9 else []
                graph.maps.add(slug)
                graph.arrays |= set(deps) - graph.maps
                storages[slug] = rng.choice(["tasks", "ranges"])
                tolerated[slug] = rng.choice([0, 1, 3, 100])
                if deps and storages[slug] == storages.get(deps[0]) == "ranges" and rng.random() < 0.5:
                    early.append(slug)
                graph.definitions.append(map_step(slug, *deps, when_exhausted=mode))
            else:
                deps = rng.sample(known, k=min(len(known), rng.randint(1, 3)))
                graph.definitions.append(step(slug, *deps, when_exhausted=mode))
            graph.parents[slug] = deps
        graph.options = {"storages": storages, "tolerated": tolerated, "early": early}
        return graph

    def output(self, slug: str, given: Any) -> Any:
        """Of an element of a map, or of the parents' outputs of a single step."""
        value = digest(slug, given)
        return [value + i for i in range(value % 5)] if slug in self.arrays else value

    def expected(self, input: list[Any]) -> dict[str, Any]:
        outputs: dict[str, Any] = {}
        for slug, deps in self.parents.items():
            if slug in self.maps:
                outputs[slug] = [self.output(slug, v) for v in (outputs[deps[0]] if deps else input)]
            else:
                outputs[slug] = self.output(slug, {dep: outputs[dep] for dep in deps})
        inner = {dep for deps in self.parents.values() for dep in deps}
        return {slug: output for slug, output in outputs.items() if slug not in inner}


@dataclass
class Play:
    """``broken``: items that fail whenever they are run. ``late``: what was claimed and is not settled."""

    repair: Repair
    graph: Graph
    rng: random.Random
    broken: set[tuple[str, int]]
    late: list[Row] = field(default_factory=list)

    def some(self) -> None:
        """Claim, settle some of it and of what was claimed before, in any order."""
        self.repair.db.do("select pgflow_tests.reset_message_visibility('f')")
        held = [*self.late, *self.repair.claim(self.rng.choice([1, 3, 50]))]
        self.rng.shuffle(held)
        cut = self.rng.randint(0, len(held))
        self.late = held[:cut]
        for item in held[cut:]:
            if (item.step, item.index) in self.broken:
                self.repair.fail(item, self.rng.choice(["odd", "even"]))
            else:
                self.repair.complete(item, self.graph.output(item.step, item.input))
            self.repair.check()

    def retry(self) -> None:
        choice: dict[str, Any] = {}
        if self.rng.random() < 0.3:
            choice["step_slugs"] = self.rng.sample(list(self.graph.parents), k=2)
        if self.rng.random() < 0.3:
            choice["item_indexes"] = self.rng.choice(["{[0,1)}", "{[1,3),[4,9)}", "{}"])
        if self.rng.random() < 0.3:
            choice["error_texts"] = [self.rng.choice(["odd", "even", "none"])]
        try:
            with self.repair.db.conn.transaction():
                plan = self.repair.retry(**choice, dry_run=True)
                assert self.repair.retry(**choice) == plan
                if not any(row.kept for row in plan.values()) and self.repair.status == "started":
                    assert self.repair.retry(**choice) == {}
        except psycopg.Error as error:
            assert error.sqlstate == "PF007", error  # noqa: PT017

    def mend(self) -> None:
        self.broken = {item for item in self.broken if self.rng.random() < 0.5}

    def cancel(self) -> None:
        self.repair.db.do("select pgflow.cancel_run(%s)", self.repair.run)
        self.repair.check()
        if self.rng.random() < 0.5:
            self.repair.db.do(
                "select pgflow.retry_failed_tasks(run_id) from pgflow.runs where status = 'failed'"
            )
            self.repair.check()


def play(db: Db, seed: int, moves: int) -> None:
    rng = random.Random(seed)
    graph = Graph.some(rng)
    input = [rng.randint(0, 9) for _ in range(rng.choice([0, 1, 4, 9]))]
    repair = begun(db, graph.definitions, input, {}, **graph.options)
    broken = {(slug, i) for slug in SLUGS for i in range(9) if rng.random() < 0.25}
    game = Play(repair, graph, rng, broken)
    actions = [game.some] * 6 + [game.retry, game.mend] * 2 + [game.cancel]
    for _ in range(moves):
        rng.choice(actions)()
    game.broken.clear()
    for _ in range(60):
        repair.retry()
        for _ in range(80):
            game.some()
        if repair.status == "completed" and not repair.retry(dry_run=True):
            break
    assert repair.status == "completed"
    assert repair.output == graph.expected(input)
    assert db.value("select count(*) from pgmq.q_f") == 0


@pytest.mark.parametrize("seed", range(8))
def test_in_the_end_all_is_as_if_nothing_had_failed(db: Db, seed: int) -> None:
    play(db, seed, 25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_in_the_end_all_is_as_if_nothing_had_failed_for_long(db: Db, seed: int) -> None:
    play(db, seed, 60)

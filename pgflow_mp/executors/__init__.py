"""What runs items: the seam between the worker and an engine.

::

    worker -- submit(lane, Chunk) --> Executor -- encoded Chunk --> a process, a thread, an engine's worker
    worker <-- on_event(Outcomes, LaneDied, ...) -- Executor <-- encoded list[Outcome] --

``protocol`` says what the worker asks of an executor; ``messages`` and ``events`` are what crosses.
``lanes/`` is the default; ``futures`` drives any concurrent.futures.Executor, and runs items inline. One
conformance suite, ``tests/executors/test_conformance.py``, holds for all of them.
"""

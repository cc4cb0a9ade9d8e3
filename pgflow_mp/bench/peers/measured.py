"""Measures one variant of one peer: python -m pgflow_mp.bench.peers.measured MODULE JSON.

JSON is a list of the fields of PeerTask; prints a list of seconds as its last line.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys

from pgflow_mp.bench.peers import PeerTask


def main() -> None:
    """Measure."""
    logging.disable(logging.WARNING)
    module = importlib.import_module(f"pgflow_mp.bench.peers.{sys.argv[1]}")
    own = os.dup(1)
    os.dup2(2, 1)  # whatever a peer prints is not our answer
    seconds = [module.measure(PeerTask(**fields)) for fields in json.loads(sys.argv[2])]
    with contextlib.suppress(OSError):
        os.write(own, (json.dumps(seconds) + "\n").encode())
    os._exit(0)  # without waiting for threads that a peer leaves behind


if __name__ == "__main__":
    main()

"""Loaded by the workers of a Dask cluster that was started for one command: Ctrl-C is for that command.

It hears the signal, too, and has its running items finished; the workers of a terminal would be gone by then.
"""

from __future__ import annotations

import signal
import threading

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.SIG_IGN)

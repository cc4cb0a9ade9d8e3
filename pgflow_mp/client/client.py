"""Starting runs and following them from anywhere (contract: worker section 7).

    with Client() as client:
        run = client.start_flow("word_count", ["one line", "another line"])
        print(run.wait().output)

Nothing is executed here: a worker that serves the flow does that.
"""

from __future__ import annotations

from pathlib import Path

from pgflow_mp.client.asking import Asking
from pgflow_mp.client.starts import Starts
from pgflow_mp.client.steering import Steering
from pgflow_mp.client.timetable import Timetable
from pgflow_mp.client.waits import Waits


class Client(Starts, Asking, Waits, Steering, Timetable):
    """Starts runs that workers execute, follows and steers them, and tells what there is.

    ``dsn``: a connection string; None looks into PGFLOW_DATABASE_URL, DATABASE_URL and the libpq environment,
    and where nothing is said there uses the embedded server, as commands do: in ``data_dir``, or the usual
    place. It is started, or attached to if it runs, by the first call, and left by ``close()``, or at the end
    of a ``with`` block, as the connection is. In a handler it is the worker's database.

    A method that takes a run takes a :class:`Run` or the id of one. Raises DatabaseError from every call
    that does not get through within 30 s.

    Threads: one client may be used from several. Calls wait for each other; what waits or streams has a
    connection of its own and holds up nobody, but each iterator is for one thread at a time.
    """

    def __init__(self, dsn: str | None = None, *, data_dir: Path | str | None = None) -> None:
        super().__init__(dsn, data_dir)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

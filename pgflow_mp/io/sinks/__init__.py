"""Results out: raw JSON elements into a file of a format, one at a time, in constant memory."""

from pgflow_mp.io.sinks.compression import compressed
from pgflow_mp.io.sinks.formats import FORMATS, check_format
from pgflow_mp.io.sinks.sink import Sink, open_sink

__all__ = ["FORMATS", "Sink", "check_format", "compressed", "open_sink"]

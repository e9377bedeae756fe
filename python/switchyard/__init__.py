"""Switchyard's transfer engine: one-sided writes between processes and machines, with counters.

An Engine registers memory as Regions. A peer that holds an engine's PeerAddress and a region's RegionKey writes into it
(write, write_pages), and a Counter at the receiver says when that has arrived. All operations can be awaited in
asyncio and waited for by threads. Sizes and offsets are in bytes, times in seconds.
"""

from switchyard import _loading  # isort: skip - before _core
from switchyard._core import (
    Counter,
    CounterId,
    Expectation,
    Operation,
    PeerAddress,
    PeerGroup,
    Priority,
    Region,
    RegionKey,
    Transfer,
    make_shared_key,
)
from switchyard._engine import Engine, Watcher
from switchyard._errors import (
    Cancelled,
    Corrupt,
    Denied,
    Error,
    Exhausted,
    Invalid,
    IOError,
    NotFound,
    OutOfRange,
    PeerLost,
    TimedOut,
    Unsupported,
)

__all__ = [
    "Cancelled",
    "Corrupt",
    "Counter",
    "CounterId",
    "Denied",
    "Engine",
    "Error",
    "Exhausted",
    "Expectation",
    "IOError",
    "Invalid",
    "NotFound",
    "Operation",
    "OutOfRange",
    "PeerAddress",
    "PeerGroup",
    "PeerLost",
    "Priority",
    "Region",
    "RegionKey",
    "TimedOut",
    "Transfer",
    "Unsupported",
    "Watcher",
    "make_shared_key",
]

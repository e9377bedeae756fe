"""What can go wrong, one class for each code of the engine."""

from __future__ import annotations


class Error(Exception):
    """An error of the engine. `code` names its kind; the message says what, where, why and what to do.

    Nothing was sent: Invalid, OutOfRange, Denied, Exhausted, Unsupported, NotFound, Corrupt.
    Some bytes may have landed: PeerLost, Cancelled, TimedOut, IOError.
    """

    code: str = "error"


class Invalid(Error, ValueError):
    """An argument that makes no sense."""

    code = "invalid"


class OutOfRange(Error, IndexError):
    """Outside of a region or of a limit."""

    code = "out_of_range"


class Denied(Error, PermissionError):
    """Not allowed: read-only memory, or the key or address of an engine that is gone."""

    code = "denied"


class Exhausted(Error):
    """A bounded resource is full; wait for something to end and try again."""

    code = "exhausted"


class Unsupported(Error, NotImplementedError):
    """Meaningful, but not here."""

    code = "unsupported"


class NotFound(Error, LookupError):
    """No such peer or device."""

    code = "not_found"


class Corrupt(Error, ValueError):
    """Bytes from outside that contradict themselves."""

    code = "corrupt"


class PeerLost(Error, ConnectionError):
    """The peer's process has ended, or nothing was heard of it within the heartbeat limit."""

    code = "peer_lost"


class Cancelled(Error):
    """Cancelled by cancel() or by closing the engine. Not asyncio's: a task's cancellation is another thing."""

    code = "cancelled"


class TimedOut(Error, TimeoutError):
    """Not complete at the operation's own deadline."""

    code = "timed_out"


class IOError(Error, OSError):
    """The operating system or the fabric failed."""

    code = "io"


_classes: dict[str, type[Error]] = {each.code: each for each in Error.__subclasses__()}


def make(code: str, message: str) -> Error:
    """The exception for a code, with this message."""
    return _classes.get(code, Error)(message)

"""Operations and events in asyncio.

Each loop has one Hub: a queue that the engines' worker threads put things into, and its descriptor, which the loop
watches. However many operations end while the loop is busy, they wake it once, and no thread but the loop's own takes
the interpreter's lock for it.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import Callable, Generator
from typing import Any

from switchyard import _core

Sink = Callable[..., None]  # of notices: their kind and what belongs to it


class Hub:
    """What engines tell one loop. Used on the loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue = _core.EventQueue()
        self._tokens = itertools.count()
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._sinks: dict[int, Sink] = {}
        loop.add_reader(self.queue.fileno(), self._drain)

    def ending(self, operation: _core.Operation, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        future: asyncio.Future[None] = loop.create_future()
        token = next(self._tokens)
        self._futures[token] = future
        operation._notify(self.queue, token)
        return future

    def add_sink(self, sink: Sink) -> int:
        token = next(self._tokens)
        self._sinks[token] = sink
        return token

    def remove_sink(self, token: int) -> None:
        self._sinks.pop(token, None)

    def _drain(self) -> None:
        completed, notices = self.queue.take()
        futures = self._futures
        for token in completed:
            future = futures.pop(token)
            if not future.done():
                future.set_result(None)
        for token, *notice in notices:
            sink = self._sinks.get(token)
            if sink is not None:
                sink(*notice)


_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def hub_of(loop: asyncio.AbstractEventLoop) -> Hub:
    """The hub of a loop; the loop runs on this thread, or does not run yet."""
    hub = _hubs.get(loop)
    if hub is None:
        hub = Hub(loop)
        with _lock:
            _hubs[loop] = hub
    return hub


def ending(operation: _core.Operation) -> Generator[Any, None, None]:
    """`await operation`."""
    if not operation.done():
        loop = asyncio.get_running_loop()
        yield from hub_of(loop).ending(operation, loop)
    error = operation.error()
    if error is not None:
        raise error


async def arrival(counter: _core.Counter, transfers: int, timeout: float | None) -> None:
    """Counter.wait(). A task that is cancelled meanwhile leaves the counter free for the next expectation."""
    expectation = counter.expect(transfers, timeout)
    try:
        await expectation
    except asyncio.CancelledError:
        expectation.cancel()
        raise

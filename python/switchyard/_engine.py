"""The engine: _core's, with handlers, asyncio and an end."""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from switchyard import _core
from switchyard._errors import Error
from switchyard._waiting import hub_of

MessageHandler = Callable[[_core.PeerAddress, bytes], Any]
PeerLostHandler = Callable[[_core.PeerAddress, Error], Any]

_log = logging.getLogger("switchyard")
_CLOSE_PATIENCE = 1.0  # seconds that close() waits for a handler that is running

_open: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine(_core.Engine):
    """One-sided writes between processes and machines.

    name: for log lines.
    fabric: "shm" (processes of one user on one host), a provider of libfabric ("net", "tcp;ofi_rxm"), or "auto". All
        engines that talk to each other need the same one.
    control_host, control_port: address that the control channel listens on and is reached at; port 0: any free one.
    message_bytes: largest message; message_slots: receive buffers for them. message_backlog: messages that may wait
        for a handler of this process that lags behind; more are dropped and counted (metrics: messages_dropped).
    max_transfers, max_counters, max_peers: how many there may be at a time; more raise Exhausted.
    heartbeat_interval, heartbeat_limit, connect_limit: seconds.

    Raises Unsupported (no such fabric here), IOError, Invalid. Every method may be called from any thread, and from
    handlers. Close it, or use it as a context manager: it has a thread, sockets and memory of other objects.
    """

    def __init__(
        self,
        name: str = "engine",
        *,
        fabric: str = "auto",
        control_host: str = "127.0.0.1",
        control_port: int = 0,
        message_bytes: int = 64 << 10,
        message_slots: int = 64,
        message_backlog: int = 16384,
        max_transfers: int = 4096,
        max_counters: int = 1024,
        max_peers: int = 512,
        heartbeat_interval: float = 0.5,
        heartbeat_limit: float = 3.0,
        connect_limit: float = 5.0,
    ) -> None:
        super().__init__(
            name=name,
            fabric=fabric,
            control_host=control_host,
            control_port=control_port,
            message_bytes=message_bytes,
            message_slots=message_slots,
            message_backlog=message_backlog,
            max_transfers=max_transfers,
            max_counters=max_counters,
            max_peers=max_peers,
            heartbeat_interval=heartbeat_interval,
            heartbeat_limit=heartbeat_limit,
            connect_limit=connect_limit,
        )
        self._lock = threading.RLock()
        self._handlers: dict[str, Callable[[_core.PeerAddress, Any], Any]] = {}
        self._unsubscribe: dict[str, Callable[[], None]] = {}
        self._dispatcher: _Dispatcher | None = None
        _open.add(self)

    def on_message(
        self, handler: MessageHandler | None, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """Calls handler(sender, message) for each message that comes; None: no more.

        loop: where it is called; of a coroutine that it returns a task is made. Call on_message on that loop's thread.
        Without one it is called on a thread of this engine's own, one call at a time, and may block. Set it before
        peers can know the address: messages that come while there is none are dropped. Messages are not ordered.
        """
        self._set_handler("message", handler, loop, self._deliver_messages)

    def on_peer_lost(
        self, handler: PeerLostHandler | None, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """Calls handler(peer, error) when a peer that was connected is gone; None: no more. `loop` is as with
        on_message(). All transfers to that peer have ended before."""
        self._set_handler("lost", handler, loop, self._deliver_losses)

    def close(self) -> None:
        """Ends every operation with Cancelled, tells the peers, unregisters all regions and lets go of their objects.

        After it nothing of this engine reads or writes their memory, and no handler is called any more, but one that
        is running now. Takes up to 0.2 seconds for what the network still has. Closing twice is no error.
        """
        self._close()
        _open.discard(self)
        with self._lock:
            self._handlers.clear()
            for unsubscribe in self._unsubscribe.values():
                unsubscribe()
            self._unsubscribe.clear()
            dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            dispatcher.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"at {self.address.control_host}:{self.address.control_port}"
        return f"<switchyard.Engine {self.name!r} {state}>"

    def _set_handler(
        self,
        kind: str,
        handler: Callable[[_core.PeerAddress, Any], Any] | None,
        loop: asyncio.AbstractEventLoop | None,
        deliver: Callable[[_core.EventQueue | None, int], None],
    ) -> None:
        with self._lock:
            if handler is None:
                deliver(None, 0)
                token, hub = None, None
            else:
                if loop is None and self._dispatcher is None:
                    self._dispatcher = _Dispatcher(self.name)
                hub = self._dispatcher if loop is None else hub_of(loop)
                assert hub is not None
                # Neither a loop nor the dispatcher's thread keeps an engine alive that nobody else knows.
                token = hub.add_sink(_Sink(weakref.ref(self), loop))
                deliver(hub.queue, token)
            unsubscribe = self._unsubscribe.pop(kind, None)
            if unsubscribe is not None:
                unsubscribe()
            self._handlers.pop(kind, None)
            if handler is not None and hub is not None and token is not None:
                self._handlers[kind] = handler
                self._unsubscribe[kind] = functools.partial(hub.remove_sink, token)


class _Sink:
    """Hands what a queue delivers to the engine's handler."""

    def __init__(self, engine: weakref.ref[Engine], loop: asyncio.AbstractEventLoop | None) -> None:
        self._engine = engine
        self._loop = weakref.ref(loop) if loop is not None else None
        self._tasks: set[asyncio.Task[Any]] = set()

    def __call__(self, kind: str, peer: _core.PeerAddress, content: Any) -> None:
        engine = self._engine()
        if engine is None:
            return
        handler = engine._handlers.get(kind)
        if handler is None:
            return
        try:
            result = handler(peer, content)
        except Exception:
            _log.exception("engine %r: the handler of on_%s raised", engine.name, _EVENTS[kind])
            return
        loop = self._loop() if self._loop is not None else None
        if loop is not None and inspect.iscoroutine(result):
            task = loop.create_task(result)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


_EVENTS = {"message": "message", "lost": "peer_lost"}


class _Dispatcher:
    """A thread that calls handlers; starts with the first, ends with its engine."""

    def __init__(self, name: str) -> None:
        self.queue = _core.EventQueue()
        self._sinks: dict[int, _Sink] = {}
        self._tokens = itertools.count()
        self._thread = threading.Thread(
            target=_dispatch, args=(self.queue, self._sinks), name=f"switchyard-{name}", daemon=True
        )
        self._thread.start()

    def add_sink(self, sink: _Sink) -> int:
        token = next(self._tokens)
        self._sinks[token] = sink
        return token

    def remove_sink(self, token: int) -> None:
        self._sinks.pop(token, None)

    def close(self) -> None:
        self.queue.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_PATIENCE)

    def __del__(self) -> None:
        self.queue.close()


def _dispatch(queue: _core.EventQueue, sinks: dict[int, _Sink]) -> None:
    while queue.wait():
        for token, kind, peer, content in queue.take()[1]:
            sink = sinks.get(token)
            if sink is not None:
                sink(kind, peer, content)
            del sink, peer, content  # not while waiting


@atexit.register
def _close_all() -> None:
    # Before the interpreter ends: afterwards a dispatcher could not take its lock any more.
    for engine in list(_open):
        engine.close()

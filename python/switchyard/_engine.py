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
from switchyard._errors import Cancelled, Error
from switchyard._waiting import Hub, hub_of

MessageHandler = Callable[[_core.PeerAddress, bytes], Any]
PeerLostHandler = Callable[[_core.PeerAddress, Error], Any]
ChangeHandler = Callable[[int, int], Any]

_log = logging.getLogger("switchyard")
_CLOSE_PATIENCE = 1.0  # seconds that close() waits for a handler that is running

_open: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine(_core.Engine):
    """One-sided writes between processes and machines.

    name: for log lines.
    fabric: the rails, separated by commas: "shm" (processes of one user on one host), "verbs", a provider of libfabric
        ("net", "tcp;ofi_rxm", "efa"), each perhaps with "@" and a local address or device; or "auto". Peers meet on
        the rails whose fabrics both have.
    control_host, control_port: address that the control channel listens on and is reached at; port 0: any free one.
    message_bytes: largest message; message_slots: receive buffers for them. message_backlog: messages that may wait
        for a handler of this process that lags behind; more are dropped and counted (metrics: messages_dropped).
    max_transfers, max_counters, max_peers: how many there may be at a time; more raise Exhausted.
    heartbeat_interval, heartbeat_limit, connect_limit: seconds. stall_limit: seconds without a completion after which
        a path with something under way counts as broken; path_rest: seconds before it is tried again, at first.

    shared_key: a secret of 16 bytes or more (make_shared_key()) that all engines which talk to each other share; without
        one, whoever reaches the control port is let in.
    tls: encrypts the control channel (messages, not what the rails carry), with keys from the shared key, or with
        certificates if certificate_file, key_file and ca_file (PEM) are given. Both the same on all engines.

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
        stall_limit: float = 3.0,
        path_rest: float = 0.05,
        shared_key: bytes = b"",
        tls: bool = False,
        certificate_file: str = "",
        key_file: str = "",
        ca_file: str = "",
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
            stall_limit=stall_limit,
            path_rest=path_rest,
            shared_key=shared_key,
            tls=tls,
            certificate_file=certificate_file,
            key_file=key_file,
            ca_file=ca_file,
        )
        self._lock = threading.RLock()
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._unsubscribe: dict[str, Callable[[], None]] = {}
        self._watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
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

    def watch(
        self,
        memory: Any,
        handler: ChangeHandler,
        *,
        offset: int = 0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Watcher:
        """Calls handler(before, now) when the 8-byte word at `offset` (bytes) of an object's memory changes, which another
        thread, process or a GPU writes. Changes that follow each other quickly may be reported as one. `loop` is as with
        on_message().

        The object has the buffer protocol or DLPack, and stays alive until the Watcher that this returns is closed or
        dropped. While there is a watch, the engine's worker looks every 100 microseconds. Raises Invalid (not aligned to
        8 bytes), OutOfRange, Exhausted.
        """
        with self._lock:
            hub = self._hub(loop)
            watcher = Watcher(self.name, handler)
            token = hub.add_sink(_Sink(weakref.ref(watcher), loop))
            watcher._unsubscribe = functools.partial(hub.remove_sink, token)
            try:
                watcher._watch = self._watch(memory, offset, hub.queue, token)
            except BaseException:
                watcher.close()
                raise
            self._watchers.add(watcher)
            return watcher

    def close(self) -> None:
        """Ends every operation with Cancelled, tells the peers, ends watches, unregisters all regions and lets go of
        their objects.

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
            for watcher in list(self._watchers):
                watcher.close()
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

    def _hub(self, loop: asyncio.AbstractEventLoop | None) -> Hub | _Dispatcher:
        if loop is not None:
            return hub_of(loop)
        if self._dispatcher is None:
            if self.closed:
                raise Cancelled(f"engine {self.name!r} was closed")
            self._dispatcher = _Dispatcher(self.name)
        return self._dispatcher

    def _set_handler(
        self,
        kind: str,
        handler: Callable[..., Any] | None,
        loop: asyncio.AbstractEventLoop | None,
        deliver: Callable[[_core.EventQueue | None, int], None],
    ) -> None:
        with self._lock:
            if handler is None:
                deliver(None, 0)
                unsubscribed = None
            else:
                hub = self._hub(loop)
                # Neither a loop nor the dispatcher's thread keeps an engine alive that nobody else knows.
                token = hub.add_sink(_Sink(weakref.ref(self), loop))
                deliver(hub.queue, token)
                unsubscribed = functools.partial(hub.remove_sink, token)
            unsubscribe = self._unsubscribe.pop(kind, None)
            if unsubscribe is not None:
                unsubscribe()
            self._handlers.pop(kind, None)
            if handler is not None and unsubscribed is not None:
                self._handlers[kind] = handler
                self._unsubscribe[kind] = unsubscribed


class Watcher:
    """A watch of a word of memory; ends with close(), or when it is dropped."""

    def __init__(self, name: str, handler: ChangeHandler) -> None:
        self.name = name
        self._handlers = {"changed": handler}
        self._watch: _core.Watch | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def close(self) -> None:
        """Ends the watch, and lets go of the memory. The handler may be running now; it is not called again."""
        self._handlers.clear()
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _Sink:
    """Hands what a queue delivers to a handler of an engine or of a watcher."""

    def __init__(self, owner: weakref.ref[Engine] | weakref.ref[Watcher], loop: asyncio.AbstractEventLoop | None) -> None:
        self._owner = owner
        self._loop = weakref.ref(loop) if loop is not None else None
        self._tasks: set[asyncio.Task[Any]] = set()

    def __call__(self, kind: str, *content: Any) -> None:
        owner = self._owner()
        if owner is None:
            return
        handler = owner._handlers.get(kind)
        if handler is None:
            return
        try:
            result = handler(*content)
        except Exception:
            _log.exception("engine %r: the handler of %s raised", owner.name, _EVENTS[kind])
            return
        loop = self._loop() if self._loop is not None else None
        if loop is not None and inspect.iscoroutine(result):
            task = loop.create_task(result)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


_EVENTS = {"message": "on_message", "lost": "on_peer_lost", "changed": "watch"}


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
        for token, *notice in queue.take()[1]:
            sink = sinks.get(token)
            if sink is not None:
                sink(*notice)
            del sink, notice  # not while waiting


@atexit.register
def _close_all() -> None:
    # Before the interpreter ends: afterwards a dispatcher could not take its lock any more.
    for engine in list(_open):
        engine.close()

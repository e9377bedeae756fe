"""Garbage, the end of the interpreter, and memory over time."""

import gc
import resource
import sys
import threading
import weakref

import numpy as np
import pytest
import switchyard
from conftest import PATIENCE, eventually, run_script


def test_engine_is_collected(fabric):
    engine = switchyard.Engine(fabric=fabric)
    engine.register(bytearray(64))
    threads = threading.active_count()
    gone = weakref.ref(engine)
    del engine
    assert gone() is None
    assert threading.active_count() == threads


def test_engine_in_a_cycle_is_collected(fabric):
    class Owner:
        def __init__(self):
            self.memory = np.zeros(64)
            self.engine = switchyard.Engine(fabric=fabric)
            self.region = self.engine.register(self.memory)
            self.engine.on_message(self.on_message)
            self.engine.on_peer_lost(lambda peer, error: self.on_message(peer, b""))

        def on_message(self, sender, message):
            pass

    owner = Owner()
    gone, memory = weakref.ref(owner), weakref.ref(owner.memory)
    name = f"switchyard-{owner.engine.name}"
    del owner
    gc.collect()
    assert gone() is None
    assert memory() is None
    eventually(lambda: name not in [thread.name for thread in threading.enumerate()])


def test_engine_dropped_by_its_own_handler(fabric, engines):
    left = engines("left")
    box = [switchyard.Engine("right", fabric=fabric)]
    gone = weakref.ref(box[0])
    address = box[0].address
    box[0].on_message(lambda sender, message: box.clear())
    try:
        left.send(address, b"drop it").wait(PATIENCE)
    except switchyard.PeerLost:
        pass  # it may be gone before it could say that it has the message
    eventually(lambda: gone() is None)


def test_engine_closed_by_its_own_handler(engines):
    left, right = engines("left"), engines("right")
    right.on_message(lambda sender, message: right.close())
    address = right.address
    try:
        left.send(address, b"close").wait(PATIENCE)
    except switchyard.PeerLost:
        pass
    eventually(lambda: right.closed)


def test_source_lives_until_it_has_drained(engines, peers):
    """A transfer that is under way keeps its source, whoever else has let go of it."""
    engine, peer = engines(heartbeat_interval=60, heartbeat_limit=600), peers(64 << 20)
    if "shm" in engine.address.fabrics:
        pytest.skip("this fabric writes to a process that stands still")
    small = engine.register(bytearray(64))
    engine.write(small, peer.address, peer.key).wait(PATIENCE)
    peer.stop()
    before = engine.metrics()["rails"][0]["work_requests"]
    memory = np.ones(64 << 20, dtype=np.uint8)
    alive = weakref.ref(memory)
    region = engine.register(memory)
    transfer = engine.write(region, peer.address, peer.key)
    region.close()
    del memory, region
    gc.collect()
    eventually(lambda: engine.metrics()["rails"][0]["work_requests"] > before)
    assert not transfer.done()
    assert alive() is not None
    drained = transfer.cancel()
    with pytest.raises(switchyard.Cancelled):
        transfer.wait(PATIENCE)
    assert not drained.done()
    assert alive() is not None  # cancelled, but not drained
    peer.kill()
    drained.wait(PATIENCE)
    eventually(lambda: engine.metrics()["transfers_pending"] == 0 and alive() is None)


def test_operations_outlive_their_engine(fabric):
    engine = switchyard.Engine(fabric=fabric)
    counter = engine.make_counter()
    waiting = counter.expect(1)
    address = engine.address
    transfer = engine.send(address, b"to itself")
    del engine
    with pytest.raises(switchyard.Cancelled):
        waiting.wait(PATIENCE)
    assert counter.arrived == 0
    del counter
    transfer.cancel().wait(PATIENCE)


END_OF_INTERPRETER = {
    "open": "",
    "handlers": "a.on_message(lambda *_: None); b.on_peer_lost(lambda *_: None)",
    "cycle": "a.self = a; a.on_message(lambda *_: a)",
    "waiting thread": """
import threading
started = threading.Event()
def wait():
    started.set()
    try: counter.expect(1).wait()
    except switchyard.Cancelled: pass
threading.Thread(target=wait, daemon=True).start()
started.wait()
""",
    # Those that wake up find an interpreter that has begun to end.
    "waiting threads": """
import threading
started = threading.Barrier(17)
def wait(counter):
    started.wait()
    try: counter.expect(1).wait()
    except switchyard.Cancelled: pass
for counter in [b.make_counter() for _ in range(16)]:
    threading.Thread(target=wait, args=(counter,), daemon=True).start()
started.wait()
""",
    "busy thread": """
import threading
def work():
    try:
        while True: a.write(ours, b.address, theirs.key).wait()
    except switchyard.Error: pass
threading.Thread(target=work, daemon=True).start()
""",
    "pending": "operations = [a.write(ours, b.address, theirs.key) for _ in range(1000)]",
    "loop": """
import asyncio
async def main():
    a.on_message(print, loop=asyncio.get_running_loop())
    asyncio.ensure_future(counter.wait(1))
    await asyncio.sleep(0)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("ending", END_OF_INTERPRETER)
def test_end_of_interpreter(fabric, ending):
    out = run_script(
        f"""
import sys, switchyard
a, b = switchyard.Engine("a", fabric=sys.argv[1]), switchyard.Engine("b", fabric=sys.argv[1])
source, target = bytearray(1 << 16), bytearray(1 << 16)
ours, theirs = a.register(source), b.register(target)
counter = b.make_counter()
a.connect(b.address).wait(30)
{END_OF_INTERPRETER[ending]}
print("ok")
""",
        fabric,
    )
    assert out == "ok\n"


def test_interrupt(fabric):
    out = run_script(
        """
import os, signal, sys, threading, switchyard
# Whoever started the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with switchyard.Engine(fabric=sys.argv[1]) as engine:
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        engine.make_counter().expect(1).wait(30)
    except KeyboardInterrupt:
        print("interrupted")
""",
        fabric,
    )
    assert out == "interrupted\n"


def test_memory_stays_flat(engines):
    left, right = engines("left"), engines("right")
    ours, theirs = left.register(bytearray(4096)), right.register(bytearray(4096))
    address, key = right.address, theirs.key
    right.on_message(lambda sender, message: None)

    def work(rounds):
        for _ in range(rounds):
            counter = right.make_counter()
            batch = [left.write(ours, address, key, counter=counter.id) for _ in range(98)]
            batch.append(left.write_pages(ours, [0, 2], address, key, [1, 3], page_bytes=64))
            batch.append(left.send(address, bytes(100)))
            counter.expect(98, timeout=PATIENCE).wait()
            for operation in batch:
                operation.wait(PATIENCE)
            with left.register(bytearray(64)):
                pass

    def used():
        gc.collect()
        return sys.getallocatedblocks(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    work(50)
    blocks, kilobytes = used()
    work(200)  # 20,000 transfers
    more_blocks, more_kilobytes = used()
    assert more_blocks - blocks < 500
    assert more_kilobytes - kilobytes < 4096

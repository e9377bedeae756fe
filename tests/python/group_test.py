"""Scatter, signals, watches, priorities, several rails."""

import array
import asyncio
import gc
import threading
import weakref

import numpy as np
import pytest
import switchyard
from conftest import PATIENCE, eventually


def targets(engines, count, nbytes=256):
    """(engine, memory, region, counter) of some peers."""
    sides = []
    for i in range(count):
        engine = engines(f"peer {i}")
        memory = np.zeros(nbytes, dtype=np.uint8)
        sides.append((engine, memory, engine.register(memory), engine.make_counter()))
    return sides


def group_of(sides):
    return switchyard.PeerGroup([(engine.address, region.key) for engine, _, region, _ in sides])


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda numbers: array.array("Q", numbers)])
def test_scatter(engines, kind):
    left, sides = engines("left"), targets(engines, 3)
    source = np.arange(256, dtype=np.uint8)
    group = group_of(sides)
    assert len(group) == 3
    transfer = left.scatter(
        left.register(source),
        group,
        nbytes=kind([1, 2, 3]),
        source_offsets=kind([10, 20, 30]),
        target_offsets=kind([0, 8, 16]),
        counters=[counter.id for *_, counter in sides],
        timeout=PATIENCE,
        priority=switchyard.Priority.LATENCY,
    )
    transfer.wait(PATIENCE)
    for i, (_, memory, _, counter) in enumerate(sides):
        counter.expect(1).wait(PATIENCE)
        expected = np.zeros_like(memory)
        expected[8 * i : 9 * i + 1] = source[10 * (i + 1) : 10 * (i + 1) + i + 1]
        assert np.array_equal(memory, expected)


def test_scatter_one_number_for_all(engines):
    left, sides = engines("left"), targets(engines, 2)
    ours = left.register(np.full(64, 7, dtype=np.uint8))
    counter = sides[0][3]
    left.scatter(ours, group_of(sides), nbytes=np.int64(4), target_offsets=100, counters=[counter.id, None]).wait(
        PATIENCE
    )
    for _, memory, _, _ in sides:
        assert memory[100:104].tolist() == [7] * 4 and memory.sum() == 28
    counter.expect(1).wait(PATIENCE)


def test_scatter_refusals(engines):
    left, sides = engines("left"), targets(engines, 2)
    ours, group = left.register(bytearray(64)), group_of(sides)
    for options, error in (
        ({"nbytes": [1]}, switchyard.Invalid),
        ({"nbytes": [1, 65]}, switchyard.OutOfRange),
        ({"nbytes": -1}, switchyard.OutOfRange),
        ({"nbytes": 1.5}, TypeError),
        ({"nbytes": 1, "target_offsets": [0, 256]}, switchyard.OutOfRange),
        ({"nbytes": 1, "counters": [None]}, switchyard.Invalid),
        ({"nbytes": 1, "priority": "latency"}, TypeError),
    ):
        with pytest.raises(error):
            left.scatter(ours, group, **options)
    with pytest.raises(TypeError):
        switchyard.PeerGroup([sides[0][0].address])
    assert left.metrics()["transfers_submitted"] == 0


def test_signal(engines):
    left, right = engines("left"), engines("right")
    counter = right.make_counter()
    for _ in range(5):
        left.signal(right.address, counter.id)
    counter.expect(5, timeout=PATIENCE).wait()
    with pytest.raises(switchyard.Denied):
        left.signal(right.address, left.make_counter().id)


def test_priorities(engines):
    left, sides = engines("left"), targets(engines, 1, 1 << 20)
    engine, _, theirs, counter = sides[0]
    ours = left.register(np.ones(1 << 20, dtype=np.uint8))
    operations = [
        left.write(ours, engine.address, theirs.key, counter=counter.id, priority=priority)
        for priority in switchyard.Priority
        for _ in range(4)
    ]
    operations.append(
        left.write_pages(
            ours, [0], engine.address, theirs.key, [0], page_bytes=8, priority=switchyard.Priority.LATENCY
        )
    )
    for operation in operations:
        operation.wait(PATIENCE)
    counter.expect(8).wait(PATIENCE)


def test_watch(engines):
    engine = engines()
    words = np.zeros(4, dtype=np.uint64)
    seen = []
    with engine.watch(words, lambda before, now: seen.append((before, now)), offset=16):
        for value in (1, 5, 1 << 63):
            words[2] = value
            eventually(lambda: seen and seen[-1][1] == value)
        words[0] = 1
    assert seen[0][0] == 0
    assert all(a[1] == b[0] for a, b in zip(seen, seen[1:]))
    count = len(seen)
    words[2] = 7
    alive = weakref.ref(words)
    del words
    gc.collect()
    assert alive() is None
    assert len(seen) == count


def test_watch_ends_with_its_handle_or_engine(engines):
    engine = engines()
    words = [np.zeros(1, dtype=np.uint64) for _ in range(2)]
    alive = [weakref.ref(word) for word in words]
    watchers = [engine.watch(word, print) for word in words]
    del words
    gc.collect()
    assert alive[0]() is not None and alive[1]() is not None
    watchers.pop(0)
    assert alive[0]() is None
    engine.close()
    assert alive[1]() is None
    with pytest.raises(switchyard.Cancelled):
        engine.watch(bytearray(8), print)


def test_watch_in_asyncio(engines):
    async def main():
        words, changes = np.zeros(1, dtype=np.uint64), asyncio.Queue()
        engine = engines()

        async def note(before, now):
            assert threading.current_thread() is threading.main_thread()
            await changes.put((before, now))

        watcher = engine.watch(words, note, loop=asyncio.get_running_loop())
        words[0] = 3
        assert await changes.get() == (0, 3)
        watcher.close()
        watcher.close()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_watch_refusals(engines):
    engine = engines()
    memory = np.zeros(8, dtype=np.uint64)
    for options, error in (
        ({"offset": 57}, switchyard.OutOfRange),
        ({"offset": 1 << 63}, switchyard.OutOfRange),
        ({"offset": 4}, switchyard.Invalid),
    ):
        with pytest.raises(error):
            engine.watch(memory, print, **options)
    with pytest.raises(switchyard.OutOfRange):
        engine.watch(bytearray(7), print)


def test_dmabuf_of_nothing(engines):
    engine = engines()
    owner = np.zeros(1)
    alive = weakref.ref(owner)
    with pytest.raises(switchyard.Error):
        engine.register_dmabuf(1 << 40, 4096, -1, owner=owner)
    del owner
    assert alive() is None


def test_several_rails():
    try:
        engines = [switchyard.Engine(name, fabric="shm,net") for name in ("left", "right")]
    except switchyard.Unsupported as error:
        pytest.skip(str(error))
    with engines[0] as left, engines[1] as right:
        assert left.address.fabrics == ["shm", "net"]
        source, target = bytearray(b"x" * (1 << 20)), bytearray(1 << 20)
        ours, theirs = left.register(source), right.register(target)
        left.write(ours, right.address, theirs.key).wait(PATIENCE)
        assert source == target
        metrics = left.metrics()
        assert [rail["fabric"] for rail in metrics["rails"]] == ["shm", "net"]
        assert metrics["peers"][0]["address"] == right.address
        assert sum(path["bytes_written"] for path in metrics["peers"][0]["paths"]) == 1 << 20
        operations = {each["name"]: each for each in metrics["operations"]}
        assert operations["write"]["count"] == sum(operations["write"]["log2_nanoseconds"]) == 1
        assert operations["write"]["seconds"] > 0

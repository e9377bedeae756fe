"""Every operation, between two engines of one process, over every fabric."""

import array
import threading

import numpy as np
import pytest
import switchyard
from conftest import PATIENCE, eventually


def pair(engines, nbytes=4096):
    """Two engines, each with memory: (engine, array, region) twice."""
    sides = []
    for name in ("left", "right"):
        engine = engines(name)
        memory = np.zeros(nbytes, dtype=np.uint8)
        sides.append((engine, memory, engine.register(memory)))
    return sides


def test_write(engines):
    (left, source, ours), (right, target, theirs) = pair(engines)
    source[:] = np.arange(source.size) % 251
    transfer = left.write(ours, right.address, theirs.key)
    assert transfer.wait(PATIENCE) is None
    assert transfer.done() and transfer.error() is None
    assert np.array_equal(source, target)


def test_write_part(engines):
    (left, source, ours), (right, target, theirs) = pair(engines)
    source[:] = 7
    left.write(ours, right.address, theirs.key, source_offset=16, target_offset=100, nbytes=50).wait(PATIENCE)
    assert target[100:150].tolist() == [7] * 50
    assert target.sum() == 7 * 50
    left.write(ours, right.address, theirs.key, source_offset=4000, target_offset=1000).wait(PATIENCE)
    assert target.sum() == 7 * (50 + 96)


def test_counter(engines):
    (left, source, ours), (right, target, theirs) = pair(engines)
    counter = right.make_counter()
    expectation = counter.expect(3, timeout=PATIENCE)
    for i in range(3):
        assert not expectation.done()
        source[i] = i + 1
        left.write(
            ours, right.address, theirs.key, source_offset=i, target_offset=i, nbytes=1, counter=counter.id
        ).wait(PATIENCE)
    expectation.wait(PATIENCE)
    assert target[:3].tolist() == [1, 2, 3]
    assert counter.arrived == 3
    counter.expect(3).wait(PATIENCE)  # has been reached already
    with pytest.raises(switchyard.TimedOut):
        counter.expect(4, timeout=0.01).wait(PATIENCE)
    pending = counter.expect(4)
    with pytest.raises(switchyard.Invalid):
        counter.expect(5)
    pending.cancel()
    with pytest.raises(switchyard.Cancelled):
        pending.wait(PATIENCE)


SOURCE_PAGES = [5, 0, 3]
TARGET_PAGES = [1, 9, 4]
LISTS = {
    "list": list,
    "tuple": tuple,
    "numpy": lambda pages: np.array(pages, dtype=np.uint32),
    "int64": np.array,
    "strided": lambda pages: np.repeat(np.array(pages, dtype=np.uint32), 3)[::3],
    "array": lambda pages: array.array("I", pages),
    "memoryview": lambda pages: memoryview(array.array("H", pages)),
    "numpy ints": lambda pages: [np.int16(page) for page in pages],
}


@pytest.mark.parametrize("kind", LISTS)
def test_write_pages(engines, kind):
    (left, source, ours), (right, target, theirs) = pair(engines)
    source[:] = np.arange(source.size) // 64
    counter = right.make_counter()
    left.write_pages(
        ours,
        LISTS[kind](SOURCE_PAGES),
        right.address,
        theirs.key,
        LISTS[kind](TARGET_PAGES),
        page_bytes=64,
        counter=counter.id,
    ).wait(PATIENCE)
    counter.expect(1).wait(PATIENCE)
    expected = np.zeros_like(target)
    for here, there in zip(SOURCE_PAGES, TARGET_PAGES):
        expected[there * 64 : (there + 1) * 64] = here
    assert np.array_equal(target, expected)


def test_write_pages_strides(engines):
    (left, source, ours), (right, target, theirs) = pair(engines)
    source[:] = np.arange(source.size) % 256
    left.write_pages(
        ours,
        range(4),
        right.address,
        theirs.key,
        [3, 2, 1, 0],
        page_bytes=8,
        source_offset=1,
        source_stride=16,
        target_offset=100,
        target_stride=32,
    ).wait(PATIENCE)
    for i in range(4):
        start = 100 + (3 - i) * 32
        assert np.array_equal(target[start : start + 8], source[1 + i * 16 : 9 + i * 16])


@pytest.mark.parametrize(
    ("pages", "error"),
    [
        ([-1], switchyard.OutOfRange),
        ([1 << 32], switchyard.OutOfRange),
        (np.array([-1]), switchyard.OutOfRange),
        (np.array([1 << 40]), switchyard.OutOfRange),
        (np.zeros((2, 2), dtype=np.uint32), switchyard.Invalid),
        (np.array([0.5]), switchyard.Invalid),
        (b"\0", switchyard.Invalid),
        ([64], switchyard.OutOfRange),
        ([0, 0], switchyard.Invalid),
        (["0"], TypeError),
        (7, TypeError),
        (range(1 << 21), switchyard.OutOfRange),
    ],
)
def test_bad_pages(engines, pages, error):
    (left, _, ours), (right, _, theirs) = pair(engines)
    with pytest.raises(error):
        left.write_pages(ours, [0], right.address, theirs.key, pages, page_bytes=64)


def test_messages(engines):
    left, right = engines("left"), engines("right", message_bytes=1024)
    got = []
    right.on_message(lambda sender, message: got.append((sender, message)))
    texts = [bytes([i]) * i for i in range(100)]
    for transfer in [left.send(right.address, text) for text in texts]:
        transfer.wait(PATIENCE)
    eventually(lambda: len(got) == len(texts))
    assert {sender for sender, _ in got} == {left.address}
    assert sorted(message for _, message in got) == sorted(texts)
    with pytest.raises(switchyard.OutOfRange):
        left.send(right.address, bytes(1 << 20))


def test_send_from_handler(engines):
    left, right = engines("left"), engines("right")
    answered = threading.Event()
    right.on_message(lambda sender, message: right.send(sender, message).wait(PATIENCE))
    left.on_message(lambda sender, message: answered.set())
    left.send(right.address, b"ping").wait(PATIENCE)
    assert answered.wait(PATIENCE)


def test_handler_that_raises(engines, caplog):
    left, right = engines("left"), engines("right")
    got = []

    def handler(sender, message):
        got.append(message)
        raise RuntimeError("from the handler")

    right.on_message(handler)
    for text in (b"1", b"2"):
        left.send(right.address, text).wait(PATIENCE)
    eventually(lambda: len(got) == 2)
    eventually(lambda: len(caplog.records) == 2)
    assert "from the handler" in caplog.text


def test_handler_that_lags(engines):
    left, right = engines("left"), engines("right", message_backlog=10)
    entered, leave = threading.Event(), threading.Event()
    got = []

    def handler(sender, message):
        got.append(message)
        entered.set()
        assert leave.wait(PATIENCE)

    right.on_message(handler)
    left.send(right.address, b"first").wait(PATIENCE)
    assert entered.wait(PATIENCE)
    for _ in range(30):
        left.send(right.address, b"more").wait(PATIENCE)
    assert right.metrics()["messages_dropped"] == 20
    leave.set()
    eventually(lambda: len(got) == 11)


def test_no_handler(engines):
    left, right = engines("left"), engines("right")
    got = []
    right.on_message(lambda sender, message: got.append(message))
    right.on_message(None)
    left.send(right.address, b"nobody").wait(PATIENCE)
    assert right.metrics()["messages_dropped"] == 1
    assert not got


def test_connect_and_loss(engines):
    left, right = engines("left"), engines("right")
    lost = []
    left.on_peer_lost(lambda peer, error: lost.append((peer, error)))
    left.connect(right.address).wait(PATIENCE)
    assert left.metrics()["peers_connected"] == 1
    address = right.address
    right.close()
    eventually(lambda: lost)
    assert lost[0][0] == address
    assert isinstance(lost[0][1], switchyard.PeerLost)
    with pytest.raises(switchyard.PeerLost):
        left.send(address, b"anybody?")


def test_metrics(engines, fabric):
    (left, _, ours), (right, _, theirs) = pair(engines)
    counter = right.make_counter()
    left.write(ours, right.address, theirs.key, nbytes=100, counter=counter.id).wait(PATIENCE)
    metrics = left.metrics()
    assert metrics["rails"][0]["fabric"] == fabric
    assert metrics["rails"][0]["bytes_written"] >= 100
    assert metrics["transfers_submitted"] == metrics["transfers_done"] == 1
    assert metrics["transfers_failed"] == 0
    assert right.metrics()["counters_used"] == 1
    del counter
    eventually(lambda: right.metrics()["counters_used"] == 0)


def test_many_threads(engines):
    (left, source, ours), (right, target, theirs) = pair(engines)
    counter = right.make_counter()
    threads, each = 8, 200

    def work():
        for _ in range(each):
            left.write(ours, right.address, theirs.key, nbytes=8, counter=counter.id).wait(PATIENCE)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    counter.expect(threads * each, timeout=PATIENCE).wait()
    for worker in workers:
        worker.join(PATIENCE)
    assert counter.arrived == threads * each

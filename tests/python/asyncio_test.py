"""Operations and handlers in asyncio."""

import asyncio
import gc
import threading
import weakref

import pytest
import switchyard
from conftest import PATIENCE


def in_loop(test):
    """Runs a coroutine function as a test, with a deadline."""

    def run(engines):
        asyncio.run(asyncio.wait_for(test(engines), PATIENCE))

    run.__name__ = test.__name__
    return run


def pair(engines, nbytes=4096):
    left, right = engines("left"), engines("right")
    source, target = bytearray(b"\x07" * nbytes), bytearray(nbytes)
    return left, right, left.register(source), right.register(target), target


@in_loop
async def test_await(engines):
    left, right, ours, theirs, target = pair(engines)
    transfer = left.write(ours, right.address, theirs.key)
    await transfer
    assert target == b"\x07" * 4096
    await transfer  # again
    await asyncio.wait_for(transfer, 1)


@in_loop
async def test_many(engines):
    left, right, ours, theirs, _ = pair(engines)
    counter = right.make_counter()
    rounds, each = 5, 500
    for _ in range(rounds):
        await asyncio.gather(
            *(left.write(ours, right.address, theirs.key, nbytes=8, counter=counter.id) for _ in range(each))
        )
    await counter.wait(rounds * each, timeout=PATIENCE)
    assert counter.arrived == rounds * each


@in_loop
async def test_several_waiters(engines):
    counter = engines().make_counter()
    waiting = counter.expect(1)
    tasks = [asyncio.ensure_future(waiting) for _ in range(3)]
    thread = asyncio.ensure_future(asyncio.to_thread(waiting.wait, PATIENCE))
    await asyncio.sleep(0)
    tasks[0].cancel()
    waiting.cancel()
    results = await asyncio.gather(*tasks, thread, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [type(result) for result in results[1:]] == [switchyard.Cancelled] * 3


@in_loop
async def test_errors(engines):
    left, right, ours, theirs, _ = pair(engines)
    counter = right.make_counter()
    with pytest.raises(switchyard.TimedOut, match="0 of 1"):
        await counter.wait(1, timeout=0.01)
    # The task's cancellation withdraws the expectation: another can be armed.
    task = asyncio.ensure_future(counter.wait(1))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting = asyncio.ensure_future(counter.wait(1))
    await left.write(ours, right.address, theirs.key, counter=counter.id)
    await waiting


@in_loop
async def test_cancel_and_drain(engines):
    left, right, ours, theirs, target = pair(engines, 32 << 20)
    transfers = [left.write(ours, right.address, theirs.key) for _ in range(8)]
    await asyncio.gather(*(transfer.cancel() for transfer in transfers))
    # Whatever had landed, nothing does any more.
    assert all(transfer.done() for transfer in transfers)
    target[:] = bytes(len(target))
    results = await asyncio.gather(*transfers, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), switchyard.Cancelled}
    await left.write(ours, right.address, theirs.key, nbytes=1)
    assert target.count(b"\x07") == 1
    await transfers[0].cancel()  # long ended: drained at once


@in_loop
async def test_handlers(engines):
    left, right = engines("left"), engines("right")
    loop = asyncio.get_running_loop()
    got, lost = asyncio.Queue(), asyncio.Queue()

    async def echo(sender, message):
        assert threading.current_thread() is threading.main_thread()
        await right.send(sender, message)

    right.on_message(echo, loop=loop)
    left.on_message(lambda sender, message: got.put_nowait(message), loop=loop)
    left.on_peer_lost(lambda peer, error: lost.put_nowait((peer, error)), loop=loop)
    for i in range(100):
        await left.send(right.address, str(i).encode())
    assert sorted([int(await got.get()) for _ in range(100)]) == list(range(100))
    address = right.address
    right.close()
    peer, error = await lost.get()
    assert peer == address and isinstance(error, switchyard.PeerLost)


@in_loop
async def test_close_while_waiting(engines):
    engine = engines()
    tasks = [asyncio.ensure_future(engine.make_counter().wait(1)) for _ in range(10)]
    await asyncio.sleep(0)
    await asyncio.to_thread(engine.close)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {switchyard.Cancelled}


def test_loops_come_and_go(engines):
    left, right, ours, theirs, _ = pair(engines)
    counter = right.make_counter()
    pending = counter.expect(3)

    async def abandon():
        right.on_message(lambda sender, message: None, loop=asyncio.get_running_loop())
        asyncio.ensure_future(pending)
        await left.write(ours, right.address, theirs.key, nbytes=1, counter=counter.id)

    # What a closed loop waited for ends without it.
    for _ in range(2):
        asyncio.run(abandon())
    left.send(right.address, b"to a loop that is closed").wait(PATIENCE)
    left.write(ours, right.address, theirs.key, nbytes=1, counter=counter.id).wait(PATIENCE)
    pending.wait(PATIENCE)
    asyncio.run(asyncio.wait_for(left.send(right.address, b"again"), PATIENCE))


def test_loops_of_several_threads(engines):
    left, right, ours, theirs, _ = pair(engines)
    failures = []

    async def work():
        for _ in range(50):
            await asyncio.gather(*(left.write(ours, right.address, theirs.key, nbytes=8) for _ in range(10)))

    def run():
        try:
            asyncio.run(asyncio.wait_for(work(), PATIENCE))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures


def test_a_loop_is_not_kept():
    async def use():
        with switchyard.Engine() as engine:
            with pytest.raises(switchyard.TimedOut):
                await engine.make_counter().wait(1, timeout=0.001)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(use())
    gc.collect()
    assert loop() is None


def test_await_without_a_loop(engines):
    waiting = engines().make_counter().expect(1)
    with pytest.raises(RuntimeError, match="no running event loop"):
        next(waiting.__await__())

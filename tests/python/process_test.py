"""Two processes; one of them is stopped, killed or forked."""

import asyncio
import hashlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import switchyard
from conftest import HERE, PATIENCE, eventually, run_script

EXAMPLES = HERE.parent.parent / "python" / "examples"


def test_pages_and_messages(engines, peers):
    engine, peer = engines(), peers(1 << 20)
    memory = np.random.default_rng(7).integers(0, 256, 1 << 20, dtype=np.uint8)
    source = engine.register(memory)
    order = np.random.default_rng(8).permutation(256).astype(np.uint32)
    transfers = [
        engine.write_pages(source, part, peer.address, peer.key, part, page_bytes=4096, counter=peer.counter)
        for part in np.split(order, 8)
    ]
    assert peer.ask("expect", 8) == hashlib.sha256(memory).hexdigest()
    for transfer in transfers:
        transfer.wait(PATIENCE)
    answers = []
    engine.on_message(lambda sender, message: answers.append((sender, message)))
    engine.send(peer.address, b"hello").wait(PATIENCE)
    eventually(lambda: answers)
    assert answers == [(peer.address, b"echo hello")]


def test_killed_peer(engines, peers):
    """A dead peer is noticed by its connection's end, long before the heartbeat limit."""
    engine, peer = engines(heartbeat_interval=60, heartbeat_limit=600), peers()
    lost = []
    engine.on_peer_lost(lambda who, error: lost.append((who, error)))
    engine.connect(peer.address).wait(PATIENCE)
    peer.stop()
    pending = [engine.send(peer.address, b"into the silence") for _ in range(4)]
    time.sleep(0.01)
    assert not any(each.done() for each in pending)
    peer.kill()
    for each in pending:
        with pytest.raises(switchyard.PeerLost):
            each.wait(PATIENCE)
    eventually(lambda: lost)
    assert lost[0][0] == peer.address
    assert isinstance(lost[0][1], switchyard.PeerLost)
    with pytest.raises(switchyard.PeerLost):
        engine.send(peer.address, b"again")


def test_killed_peer_in_asyncio(engines, peers):
    engine, peer = engines(heartbeat_interval=60, heartbeat_limit=600), peers()

    async def main():
        await engine.connect(peer.address)
        peer.stop()
        pending = [engine.send(peer.address, b"into the silence") for _ in range(4)]
        asyncio.get_running_loop().call_later(0.01, peer.kill)
        results = await asyncio.gather(*pending, return_exceptions=True)
        assert {type(result) for result in results} == {switchyard.PeerLost}

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_exhausted(engines, peers):
    engine, peer = engines(max_transfers=3), peers()
    engine.connect(peer.address).wait(PATIENCE)
    peer.stop()
    pending = [engine.send(peer.address, b"into the silence") for _ in range(3)]
    with pytest.raises(switchyard.Exhausted):
        engine.send(peer.address, b"one too many")
    peer.kill()
    for each in pending:
        with pytest.raises(switchyard.PeerLost):
            each.wait(PATIENCE)


def test_stopped_peer(engines, peers):
    engine, peer = engines(heartbeat_interval=0.05, heartbeat_limit=0.3), peers()
    engine.connect(peer.address).wait(PATIENCE)
    peer.stop()
    with pytest.raises(switchyard.TimedOut):
        engine.send(peer.address, b"hello?", timeout=0.05).wait(PATIENCE)
    with pytest.raises(switchyard.PeerLost):
        engine.send(peer.address, b"hello?").wait(PATIENCE)


def test_fork(fabric):
    """A forked child has no engine: it is told so, and does the parent's no harm."""
    out = run_script(
        """
import gc, os, sys, switchyard
a, b = switchyard.Engine("a", fabric=sys.argv[1]), switchyard.Engine("b", fabric=sys.argv[1])
source, target = bytearray(b"x" * 64), bytearray(64)
ours, theirs = a.register(source), b.register(target)
counter = b.make_counter()
pid = os.fork()
if pid == 0:
    for call in (a.metrics, lambda: a.send(b.address, b"x"), lambda: counter.id, a.make_counter):
        try:
            call()
            os._exit(3)
        except switchyard.Invalid as error:
            assert "forked" in str(error)
    a.close()
    del a, b, ours, theirs, counter
    gc.collect()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
a.write(ours, b.address, theirs.key, counter=counter.id).wait(30)
counter.expect(1).wait(30)
assert source == target
print("ok")
""",
        fabric,
    )
    assert out == "ok\n"


def test_documentation():
    text = (HERE.parent.parent / "docs" / "python.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert programs
    for program in programs:
        run_script(program)


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example(fabric, example):
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / example), "--fabric", fabric],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout

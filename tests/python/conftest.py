import contextlib
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import pytest
import switchyard

PATIENCE = 30.0  # seconds; nothing here takes that long unless it is broken
HERE = pathlib.Path(__file__).parent


def eventually(holds):
    """Polls until it holds; fails when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


@pytest.fixture(params=["shm", "net"])
def fabric(request):
    try:
        switchyard.Engine("probe", fabric=request.param).close()
    except switchyard.Unsupported as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def engines(fabric):
    """Opens engines of the fabric, and closes them after the test."""
    with contextlib.ExitStack() as stack:

        def make(name="engine", **options):
            return stack.enter_context(switchyard.Engine(name, fabric=fabric, **options))

        yield make


class Peer:
    """peer.py in a process of its own: an engine with a region and a counter."""

    def __init__(self, fabric, nbytes):
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "peer.py"), fabric, str(nbytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        names = pickle.loads(bytes.fromhex(self._process.stdout.readline().decode()))
        self.address, self.key, self.counter = names["address"], names["key"], names["counter"]

    def ask(self, *words):
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().strip()

    def stop(self):
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until it stands still

    def kill(self):
        self._process.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture
def peers(fabric):
    with contextlib.ExitStack() as stack:
        yield lambda nbytes=4096: stack.enter_context(Peer(fabric, nbytes))


def run_script(text, *arguments):
    """Runs a program in a process of its own; returns what it printed. It has to end well and in silence."""
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "SWITCHYARD_LOG": "off"},  # one of two engines has to close first
    )
    assert result.returncode == 0, f"{result.returncode}: {result.stdout}{result.stderr}"
    assert result.stderr == ""
    return result.stdout

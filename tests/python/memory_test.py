"""What can be registered, what is refused, and how long it is kept."""

import array
import gc
import mmap
import weakref

import dlpack
import numpy as np
import pytest
import switchyard
from conftest import PATIENCE, eventually

KINDS = {
    "bytearray": lambda: bytearray(4096),
    "numpy": lambda: np.zeros((16, 64), dtype=np.float32),
    "numpy column-major": lambda: np.zeros((16, 64), dtype=np.float32, order="F"),
    "numpy slice": lambda: np.zeros(8192, dtype=np.uint8)[4096:],
    "memoryview": lambda: memoryview(bytearray(4096)),
    "array": lambda: array.array("d", [0] * 512),
    "mmap": lambda: mmap.mmap(-1, 4096),
}


@pytest.mark.parametrize("kind", KINDS)
def test_buffers(engines, kind):
    left, right = engines("left"), engines("right")
    source, target = KINDS[kind](), KINDS[kind]()
    flat = np.asarray(source).ravel(order="K").view(np.uint8)  # the same memory
    flat[:] = np.arange(4096) % 251
    _write(left, right, source, target)
    assert np.array_equal(np.asarray(target).ravel(order="K").view(np.uint8), flat)


def _write(left, right, source, target):
    ours, theirs = left.register(source), right.register(target)
    assert ours.nbytes == theirs.key.nbytes == 4096
    left.write(ours, right.address, theirs.key).wait(PATIENCE)


@pytest.mark.parametrize("version", [(1, 0), (1, 7), None])
@pytest.mark.parametrize("strides", [None, (64, 8, 1), (1, 8, 64)])
def test_dlpack(engines, version, strides):
    left, right = engines("left"), engines("right")
    source = bytearray(range(256)) * 20
    target = bytearray(256 * 20)
    tensors = [
        dlpack.Producer(memory, (8, 8, 8), strides=strides, dtype=(dlpack.FLOAT, 64), offset=16, version=version)
        for memory in (source, target)
    ]
    _write(left, right, *tensors)
    assert target == bytes(16) + source[16 : 16 + 4096] + bytes(len(target) - 16 - 4096)
    assert [tensor.lent for tensor in tensors] == [1, 1]
    left.close()
    right.close()
    assert [tensor.lent for tensor in tensors] == [0, 0]


def test_memory_of_objects_is_refused(engines):
    left = engines("left")
    with pytest.raises(switchyard.Invalid, match="objects"):
        left.register(np.array([object()]))
    named = np.zeros(4, dtype=[("O", np.uint32), ("x", np.uint8)])
    left.register(named).close()


def test_read_only_is_refused(engines):
    engine = engines()
    frozen = np.zeros(16)
    frozen.flags.writeable = False
    tensor = dlpack.Producer(bytearray(16), (16,), flags=dlpack.READ_ONLY)
    for memory in (b"bytes", frozen, memoryview(b"bytes"), tensor):
        with pytest.raises(switchyard.Denied, match="read-only"):
            engine.register(memory)
    assert tensor.lent == 0


def test_gaps_are_refused(engines):
    engine = engines()
    tensor = dlpack.Producer(bytearray(64), (4, 4), strides=(8, 1))
    for memory in (np.zeros(16)[::2], np.zeros((4, 4))[:, :2], memoryview(bytearray(8))[::2], tensor):
        with pytest.raises(switchyard.Invalid, match="contiguous"):
            engine.register(memory)
    assert tensor.lent == 0


def test_other_things_are_refused(engines):
    engine = engines()
    for thing in (7, "text", [1, 2], object()):
        with pytest.raises(switchyard.Invalid, match="buffer protocol"):
            engine.register(thing)
    with pytest.raises(switchyard.Invalid, match="empty"):
        engine.register(bytearray())
    with pytest.raises(switchyard.Unsupported, match="CUDA"):
        engine.register(dlpack.Producer(bytearray(16), (16,), device=dlpack.CUDA))
    with pytest.raises(switchyard.Unsupported, match="version 2"):
        engine.register(dlpack.Producer(bytearray(16), (16,), version=(2, 0)))
    with pytest.raises(switchyard.Invalid, match="capsule"):
        engine.register(dlpack.Producer(bytearray(16), (16,), capsule_name=b"another"))


def test_dlpack_pages(engines):
    left, right = engines("left"), engines("right")
    source, target = bytearray(b"abcd"), bytearray(4)
    ours, theirs = left.register(source), right.register(target)
    pages = array.array("I", [3, 9, 1, 9, 0, 9, 2, 9])
    every_other = dlpack.Producer(pages.tobytes() and bytearray(pages.tobytes()), (4,), strides=(2,), dtype=(dlpack.UINT, 32))
    wide = dlpack.Producer(bytearray(np.arange(4).tobytes()), (4,), dtype=(dlpack.INT, 64))
    left.write_pages(ours, every_other, right.address, theirs.key, wide, page_bytes=1).wait(PATIENCE)
    assert target == b"dbac"
    assert every_other.lent == wide.lent == 0
    halves = dlpack.Producer(bytearray(8), (4,), dtype=(dlpack.FLOAT, 16))
    with pytest.raises(switchyard.Invalid):
        left.write_pages(ours, halves, right.address, theirs.key, wide, page_bytes=1)


def test_object_lives_as_long_as_the_region(engines):
    engine = engines()
    memory = np.zeros(4096)
    alive = weakref.ref(memory)
    region = engine.register(memory)
    key = region.key
    del memory, region  # peers may still hold the key
    gc.collect()
    assert alive() is not None
    engine.close()
    assert alive() is None
    assert key.nbytes == 4096 * 8


def test_close_of_a_region(engines):
    left, right = engines("left"), engines("right")
    source, target = bytearray(64), bytearray(64)
    ours = left.register(source)
    with right.register(target) as theirs:
        with pytest.raises(BufferError):
            target.extend(b"more")  # it would move
        left.write(ours, right.address, theirs.key).wait(PATIENCE)
        assert not theirs.closed
    assert theirs.closed
    target.extend(b"more")
    with pytest.raises(switchyard.IOError):
        left.write(ours, right.address, theirs.key).wait(PATIENCE)
    theirs.close()
    with pytest.raises(switchyard.Invalid, match="closed"):
        right.write(theirs, left.address, ours.key)
    ours.close()
    eventually(lambda: _resizable(source))


def _resizable(memory):
    try:
        memory.extend(b"x")
    except BufferError:
        return False
    return True

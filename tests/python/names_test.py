"""PeerAddress, RegionKey and CounterId: what travels between processes."""

import copy
import pickle

import pytest
import switchyard


@pytest.fixture
def names(engines):
    engine = engines()
    return [engine.address, engine.register(bytearray(64)).key, engine.make_counter().id]


def test_bytes_and_pickle(names):
    for name in names:
        kind = type(name)
        for again in (
            kind.parse(name.serialize()),
            kind.parse(memoryview(bytearray(bytes(name)))),
            pickle.loads(pickle.dumps(name)),
            copy.deepcopy(name),
        ):
            assert again == name
            assert hash(again) == hash(name)
            assert type(again) is kind


def test_differ(engines, names):
    other = engines()
    assert other.address != names[0]
    assert names[0] != names[1]
    assert names[0] != "an address"


def test_foreign_bytes(names):
    for name in names:
        whole = name.serialize()
        for part in (b"", whole[:-1], whole + b"\0", b"\xff" * len(whole)):
            if type(name) is switchyard.CounterId and len(part) == len(whole):
                continue  # any sixteen bytes name a counter
            with pytest.raises(switchyard.Corrupt):
                type(name).parse(part)
        with pytest.raises((switchyard.Invalid, TypeError)):
            type(name).parse("text")


def test_properties(engines, fabric):
    engine = engines("left")
    assert engine.name == "left"
    assert engine.address.fabrics == [fabric]
    assert engine.address.control_host == "127.0.0.1"
    assert engine.address.control_port > 0
    key = engine.register(bytearray(100)).key
    assert key.nbytes == 100
    assert key.epoch == engine.address.epoch == engine.make_counter().id.epoch
    assert "left" in repr(engine) and "100" in repr(key)

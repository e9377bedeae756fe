"""Errors: classes, codes, and when which one comes."""

import pickle

import pytest
import switchyard
from conftest import PATIENCE


def test_classes():
    codes = {each.code: each for each in switchyard.Error.__subclasses__()}
    assert set(codes) == {
        "invalid", "out_of_range", "denied", "exhausted", "unsupported", "not_found", "corrupt",
        "peer_lost", "cancelled", "timed_out", "io",
    }  # fmt: skip
    for code, each in codes.items():
        assert getattr(switchyard, each.__name__) is each
        again = pickle.loads(pickle.dumps(each("why")))
        assert type(again) is each and again.code == code and str(again) == "why"
    assert issubclass(switchyard.TimedOut, TimeoutError)
    assert issubclass(switchyard.PeerLost, ConnectionError)
    assert issubclass(switchyard.Invalid, ValueError)


def test_options():
    for options in (
        {"fabric": "no such fabric"},
        {"control_host": "no such host"},
        {"max_transfers": 0},
        {"heartbeat_limit": 0.1},
        {"connect_limit": -1},
        {"connect_limit": float("nan")},
    ):
        with pytest.raises(switchyard.Error):
            switchyard.Engine(**options)
    for options in ({"max_peers": -1}, {"name": 7}):
        with pytest.raises(TypeError):
            switchyard.Engine(**options)


def test_shared_key(engines):
    key = switchyard.make_shared_key()
    assert len(key) == 32 and key != switchyard.make_shared_key()
    left, right = engines("left", shared_key=key, tls=True), engines("right", shared_key=key, tls=True)
    left.connect(right.address).wait(PATIENCE)
    for stranger in (engines("no key"), engines("another", shared_key=bytes(32)), engines("plain", shared_key=key)):
        with pytest.raises(switchyard.Denied):
            stranger.send(right.address, b"hello").wait(PATIENCE)
    with pytest.raises(switchyard.Invalid):
        engines(shared_key=b"short")
    with pytest.raises(switchyard.Error):
        engines(tls=True, certificate_file="none", key_file="none", ca_file="none")


def test_submission(engines):
    left, right = engines("left"), engines("right")
    ours, theirs = left.register(bytearray(64)), right.register(bytearray(64))

    def write(**options):
        return left.write(ours, right.address, theirs.key, **options)

    for options in ({"nbytes": 65}, {"source_offset": 65, "nbytes": 1}, {"target_offset": 1}, {"target_offset": 1 << 63}):
        with pytest.raises(switchyard.OutOfRange):
            write(**options)
    for options in ({"timeout": -1}, {"timeout": float("nan")}):
        with pytest.raises(switchyard.Invalid):
            write(**options)
    for options in ({"nbytes": -1}, {"nbytes": 1.5}, {"counter": 7}):
        with pytest.raises(TypeError):
            write(**options)
    with pytest.raises(switchyard.Denied):
        left.write(ours, left.address, theirs.key)
    with pytest.raises(switchyard.Denied):
        write(counter=left.make_counter().id)
    with pytest.raises(switchyard.Invalid, match="another engine"):
        right.write(ours, right.address, theirs.key)
    assert left.metrics()["transfers_submitted"] == 0


def test_exhausted(engines):
    left = engines("left", max_counters=2)
    counters = [left.make_counter() for _ in range(2)]
    with pytest.raises(switchyard.Exhausted):
        left.make_counter()
    counters.clear()
    left.make_counter()


def test_predecessor(engines, fabric):
    left = engines("left")
    ours = left.register(bytearray(64))
    with switchyard.Engine("old", fabric=fabric) as old:
        address, key = old.address, old.register(bytearray(64)).key
        left.write(ours, address, key).wait(PATIENCE)
    new = engines("new", control_port=address.control_port)
    assert new.address != address
    with pytest.raises(switchyard.PeerLost):
        left.write(ours, address, key).wait(PATIENCE)
    with pytest.raises(switchyard.Denied):
        engines("other").send(address, b"hello").wait(PATIENCE)


def test_nobody_there(engines):
    left = engines("left", connect_limit=1)
    right = engines("right")
    address = right.address
    right.close()
    with pytest.raises(switchyard.Error) as caught:
        left.connect(address).wait(PATIENCE)
    assert caught.value.code in ("peer_lost", "timed_out")


def test_closed_engine(engines):
    left, right = engines("left"), engines("right")
    ours, theirs = left.register(bytearray(64)), right.register(bytearray(64))
    counter = left.make_counter()
    waiting = counter.expect(1)
    left.close()
    left.close()
    assert left.closed and "closed" in repr(left)
    assert ours.closed and ours.nbytes == 64
    with pytest.raises(switchyard.Cancelled):
        waiting.wait(PATIENCE)
    with pytest.raises(switchyard.Invalid, match="region was closed"):
        left.write(ours, right.address, theirs.key)
    for call in (
        lambda: left.register(bytearray(1)),
        lambda: left.send(right.address, b""),
        lambda: left.connect(right.address),
        lambda: left.on_message(print),
        lambda: left.on_message(None),
        lambda: counter.expect(2),
        left.make_counter,
        left.metrics,
    ):
        with pytest.raises(switchyard.Cancelled, match="was closed"):
            call()
    assert left.address.control_port > 0
    counter.arrived


def test_wait_runs_out(engines):
    counter = engines().make_counter()
    waiting = counter.expect(1)
    with pytest.raises(TimeoutError) as caught:
        waiting.wait(0.01)
    assert not isinstance(caught.value, switchyard.Error)  # the expectation goes on
    assert not waiting.done()
    with pytest.raises(switchyard.Invalid):
        waiting.wait(-1)

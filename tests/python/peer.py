"""The other process of the tests; see conftest.Peer."""

import hashlib
import pickle
import sys

import switchyard

fabric, nbytes = sys.argv[1], int(sys.argv[2])
memory = bytearray(nbytes)
with switchyard.Engine("peer", fabric=fabric) as engine:
    engine.on_message(lambda sender, message: engine.send(sender, b"echo " + message))
    region = engine.register(memory)
    counter = engine.make_counter()
    names = {"address": engine.address, "key": region.key, "counter": counter.id}
    print(pickle.dumps(names).hex(), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "expect":
            counter.expect(int(words[0]), timeout=30).wait()
            print(hashlib.sha256(memory).hexdigest(), flush=True)

"""Two processes: one computes KV pages and pushes them, the other counts them and starts as soon as all are there.

There is no "done" message: the receiver arms a counter with the number of transfers that it expects.
"""

import argparse
import multiprocessing
import sys

import switchyard

LAYERS = 8
PAGE_BYTES = 16 << 10
POOL_PAGES = 64  # of each process, for each layer
PAGES = [3, 1, 4, 15, 9, 2, 6]  # of the receiver, in the order of the tokens


def page_of(layer: int, index: int) -> bytes:
    return bytes([(layer * 31 + index) % 256]) * PAGE_BYTES


def prefill(fabric: str, orders) -> None:
    """Fills pages 0, 1, 2, ... of its own pool and writes each layer to the receiver when it is ready."""
    order = orders.recv()  # PeerAddress, RegionKey and CounterId travel as they are
    pool = bytearray(LAYERS * POOL_PAGES * PAGE_BYTES)
    with switchyard.Engine("prefill", fabric=fabric) as engine:
        source = engine.register(pool)
        transfers = []
        for layer in range(LAYERS):
            base = layer * POOL_PAGES * PAGE_BYTES
            for i in range(len(PAGES)):
                pool[base + i * PAGE_BYTES : base + (i + 1) * PAGE_BYTES] = page_of(layer, i)
            transfers.append(
                engine.write_pages(
                    source,
                    range(len(PAGES)),
                    order["address"],
                    order["key"],
                    order["pages"],
                    page_bytes=PAGE_BYTES,
                    source_offset=base,
                    target_offset=base,
                    counter=order["counter"],
                    timeout=30,
                )
            )
        for transfer in transfers:
            transfer.wait()


def decode(fabric: str) -> None:
    pool = bytearray(LAYERS * POOL_PAGES * PAGE_BYTES)
    with switchyard.Engine("decode", fabric=fabric) as engine:
        region = engine.register(pool)
        counter = engine.make_counter()
        context = multiprocessing.get_context("spawn")  # engines do not survive a fork
        orders, theirs = context.Pipe()
        process = context.Process(target=prefill, args=(fabric, theirs))
        process.start()
        orders.send({"address": engine.address, "key": region.key, "counter": counter.id, "pages": PAGES})

        counter.expect(LAYERS, timeout=30).wait()
        for layer in range(LAYERS):
            for i, page in enumerate(PAGES):
                start = (layer * POOL_PAGES + page) * PAGE_BYTES
                assert pool[start : start + PAGE_BYTES] == page_of(layer, i)
        print(f"{LAYERS * len(PAGES)} pages of {LAYERS} layers are there")
        process.join(30)
        sys.exit(process.exitcode)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fabric", default="auto")
    decode(parser.parse_args().fabric)

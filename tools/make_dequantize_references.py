#!/usr/bin/env python3
"""Writes tests/data/dequantize_references.json: random blocks of every type that is read, and the floats that
gguf-py's dequantizer makes of them (bytes in hexadecimal, floats as little-endian 32-bit).

    pip install gguf numpy
    tools/make_dequantize_references.py
"""

import json
import pathlib

import gguf
import numpy as np
from gguf.quants import dequantize

BLOCKS = {"q8_0": 8, "q4_0": 8, "q4_1": 8, "q5_0": 8, "q5_1": 8, "q4_k": 2, "q5_k": 2, "q6_k": 2, "bf16": 64, "f16": 64}
# Where a block has its half-precision factors; any other bytes may be anything.
HALVES = {
    "q8_0": [0], "q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2],
    "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208], "f16": [0],
}


def random_blocks(name: str, rng: np.random.Generator) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[name.upper()]
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, size=(BLOCKS[name], block_bytes), dtype=np.uint8)
    for offset in HALVES.get(name, []):
        # Mostly ordinary, the first two a subnormal and a large one.
        values = rng.normal(0, 0.05, size=BLOCKS[name]).astype(np.float16)
        values[0] = np.float16(3.1e-7)
        values[-1] = np.float16(-1234.5)
        blocks[:, offset:offset + 2] = values.view(np.uint8).reshape(-1, 2)
    if name == "bf16":  # neither infinite nor NaN
        blocks[:, 1] = np.where((blocks[:, 1] & 0x7F) == 0x7F, 0x40, blocks[:, 1])
    return blocks


def main() -> None:
    rng = np.random.default_rng(20)
    references = {}
    for name in BLOCKS:
        blocks = random_blocks(name, rng)
        values = dequantize(blocks, gguf.GGMLQuantizationType[name.upper()]).astype("<f4")
        assert np.isfinite(values).all(), name
        references[name] = {"blocks": blocks.tobytes().hex(), "values": values.tobytes().hex()}
    path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "dequantize_references.json"
    path.write_text(json.dumps(references, indent=0) + "\n")
    print(f"wrote {path} ({path.stat().st_size} bytes)")


if __name__ == "__main__":
    main()

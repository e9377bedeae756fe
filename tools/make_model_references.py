#!/usr/bin/env python3
"""Writes what Hugging Face transformers computes, for tests/model/references_test.cc to compare with.

  tools/make_model_references.py tiny                 tests/data/tiny_references.json
  tools/make_model_references.py real MODEL.gguf      tests/data/smollm2_references.json

Needs torch, transformers and gguf. Everything runs in float32 on the CPU. The tiny checkpoints are those of
tests/model/tiny_tensors.h: the same numbers from the same seed and name.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
MASK = (1 << 64) - 1


class TinyRandom:
    """SplitMix64, seeded with a number and a name."""

    def __init__(self, seed, name):
        self.state = seed
        for byte in name.encode():
            self.state = ((self.state ^ byte) * 0x100000001B3) & MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def number(self):
        return np.float32(self.next() >> 40) * np.float32(2.0**-23) - np.float32(1)


def tiny_values(seed, name, shape):
    random = TinyRandom(seed, name)
    norm = name.endswith("norm")
    columns = shape[1] if len(shape) == 2 else 1
    amplitude = np.float32(0.1) if norm else np.sqrt(np.float32(3) / np.float32(columns))
    values = [random.number() * amplitude + np.float32(1 if norm else 0) for _ in range(int(np.prod(shape)))]
    return torch.tensor(np.array(values, dtype=np.float32).reshape(shape))


NAMES = {
    "model.embed_tokens.weight": "token_embedding",
    "model.norm.weight": "output_norm",
    "lm_head.weight": "output",
    "input_layernorm.weight": "attention_norm",
    "self_attn.q_proj.weight": "attention.q",
    "self_attn.k_proj.weight": "attention.k",
    "self_attn.v_proj.weight": "attention.v",
    "self_attn.q_proj.bias": "attention.q_bias",
    "self_attn.k_proj.bias": "attention.k_bias",
    "self_attn.v_proj.bias": "attention.v_bias",
    "self_attn.o_proj.weight": "attention.output",
    "post_attention_layernorm.weight": "ffn_norm",
    "mlp.gate_proj.weight": "ffn.gate",
    "mlp.up_proj.weight": "ffn.up",
    "mlp.down_proj.weight": "ffn.down",
}


def project_name(name):
    if name in NAMES:
        return NAMES[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    return f"layers.{layer}.{NAMES[rest]}"


TINY = [
    {"name": "llama", "architecture": "llama", "heads": 4, "kv_heads": 2, "head_dim": 16, "tied": True, "rope": None},
    {
        "name": "llama3_rope",
        "architecture": "llama",
        "heads": 4,
        "kv_heads": 1,
        "head_dim": 32,
        "tied": False,
        "rope": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    {
        "name": "linear_rope",
        "architecture": "llama",
        "heads": 4,
        "kv_heads": 4,
        "head_dim": 16,
        "tied": True,
        "rope": {"rope_type": "linear", "factor": 2.0},
    },
    {"name": "qwen2", "architecture": "qwen2", "heads": 4, "kv_heads": 2, "head_dim": 16, "tied": True, "rope": None},
]


def with_half_keys_values(module):
    """Makes eager attention round keys and values to halves, as the KV pool does; returns what undoes it."""
    original = module.eager_attention_forward

    def rounded(self, query, key, value, *arguments, **options):
        return original(self, query, key.half().float(), value.half().float(), *arguments, **options)

    module.eager_attention_forward = rounded

    def undo():
        module.eager_attention_forward = original

    return undo


def make_tiny():
    results = []
    for case in TINY:
        common = dict(
            vocab_size=320,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=case["heads"],
            num_key_value_heads=case["kv_heads"],
            head_dim=case["head_dim"],
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            tie_word_embeddings=case["tied"],
            attn_implementation="eager",
        )
        common["rope_theta"] = 10000.0
        if case["rope"]:
            common["rope_scaling"] = dict(case["rope"])
        if case["architecture"] == "llama":
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common))
        else:
            model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**common))
        model = model.float().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tiny_values(1, project_name(name), tuple(parameter.shape)))
            random = TinyRandom(7, "tokens")
            tokens = [random.next() % 320 for _ in range(200)]
            logits = model(torch.tensor([tokens])).logits[0]
            undo = with_half_keys_values(sys.modules[type(model).__module__])
            half_logits = model(torch.tensor([tokens])).logits[0]
            undo()
        positions = [0, 1, 17, 63, 199]
        results.append(
            {
                **case,
                "tokens": tokens,
                "positions": positions,
                "logits": [[round(float(v), 6) for v in logits[p]] for p in positions],
                "half_kv_logits": [[round(float(v), 6) for v in half_logits[p]] for p in positions],
            }
        )
    write("tiny_references.json", {"made_with": versions(), "models": results})


CODE = '''def fibonacci(count):
    """Return the first numbers of the Fibonacci sequence."""
    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:count]


class Queue:
    def __init__(self, capacity):
        self.items = []
        self.capacity = capacity

    def push(self, item):
        if len(self.items) == self.capacity:
            raise OverflowError("the queue is full")
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("the queue is empty")
        return self.items.pop(0)


for number in fibonacci(10):
    print(number)
'''

PROSE = """Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once \
or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what is \
the use of a book," thought Alice, "without pictures or conversations?" So she was considering in her own mind (as well \
as she could, for the hot day made her feel very sleepy and stupid), whether the pleasure of making a daisy-chain would \
be worth the trouble of getting up and picking the daisies, when suddenly a White Rabbit with pink eyes ran close by her.

Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, and \
dedicated to the proposition that all men are created equal. Now we are engaged in a great civil war, testing whether \
that nation, or any nation so conceived and so dedicated, can long endure. We are met on a great battle-field of that \
war. We have come to dedicate a portion of that field, as a final resting place for those who here gave their lives that \
that nation might live. It is altogether fitting and proper that we should do this.

The water cycle describes how water moves through the environment. The sun warms the surface of oceans and lakes, and \
some of the water evaporates into the air. As the vapour rises it cools and condenses into clouds. When the drops grow \
heavy enough, they fall as rain, snow or hail. Some of the water sinks into the ground, and some of it flows over the \
land into rivers, which carry it back to the sea. 17 + 25 = 42, and 3.14159 is close to pi. Die Katze sitzt auf der \
Matte; le chat est assis sur le tapis."""

CHAT = [
    {"role": "user", "content": "Explain why the sky is blue, in two sentences."},
    {
        "role": "assistant",
        "content": "Sunlight is scattered by the molecules of the air, and short wavelengths are scattered much more than "
        "long ones. So blue light reaches our eyes from every direction of the sky.",
    },
    {"role": "user", "content": "And why are sunsets red?"},
]


def make_real(path):
    path = pathlib.Path(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    texts = {
        "license": (ROOT / "LICENSE").read_text(),
        "prose": PROSE,
        "code": CODE,
        "chat": tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True),
    }
    results = []
    for name, text in texts.items():
        tokens = tokenizer(text, add_special_tokens=False).input_ids[:1400]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0]
        top = logits.topk(2, dim=-1)
        margins = (top.values[:, 0] - top.values[:, 1]).tolist()
        results.append(
            {
                "name": name,
                "tokens": tokens,
                "top": top.indices[:, 0].tolist(),
                "margins": [round(m, 4) for m in margins],
            }
        )
        print(name, len(tokens), "tokens")
    prompt = tokenizer("The capital of France is", add_special_tokens=False).input_ids
    with torch.no_grad():
        output = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0].tolist()
    results_greedy = {"prompt": prompt, "output": output[len(prompt):], "text": tokenizer.decode(output[len(prompt):])}
    write("smollm2_references.json", {"made_with": versions(), "greedy": results_greedy, "texts": results})


def versions():
    return f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"


def write(name, value):
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / name).write_text(json.dumps(value, separators=(",", ":")).replace("},{", "},\n{") + "\n")
    print(DATA / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tiny")
    commands.add_parser("real").add_argument("model")
    arguments = parser.parse_args()
    if arguments.command == "tiny":
        make_tiny()
    else:
        make_real(arguments.model)


if __name__ == "__main__":
    main()

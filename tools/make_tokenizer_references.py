#!/usr/bin/env python3
"""Writes tests/data/tokenizer_*: texts, small tokenizers trained on them, and what Hugging Face makes of the texts.

Needs the packages `tokenizers` and, for the real model's ids, `gguf`:

    tools/make_tokenizer_references.py [--model SmolLM2-135M-Instruct.Q4_1.gguf]

Everything is seeded: the same versions of the packages write the same files.
"""

import argparse
import json
import pathlib
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

CORPUS = [
    "", " ", "  ", "a", "Hello, world!", "Hello,  world!  How's it going?  I'll say we'RE fine, they'VE left.",
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX.",
    "def fib(n: int) -> int:\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n\n\nprint(fib(10))\n",
    "#include <vector>\nint main(int argc, char** argv) {\n\tstd::vector<int> v{1, 2, 3};\n\treturn v[0] & 0xFF;\n}\n",
    "fn main() {\r\n    let x: Option<&'static str> = None;\r\n    println!(\"{x:?}\");\r\n}\r\n",
    "SELECT a.id, COUNT(*) FROM a LEFT JOIN b ON a.id = b.a_id WHERE b.x >= 10 GROUP BY 1;\n",
    "<div class=\"x\">&nbsp;<b>bold</b></div>\n<!-- comment -->", "const f = async (x) => { await g(`${x}`); };",
    "for i in $(seq 1 10); do echo \"$i\" | sed 's/1/2/g' >> /tmp/out; done", "{\"a\": [1, 2.5e-3, null, true], \"b\": {}}",
    "x = 1234567890; y = 3.14159; z = 1_000_000; hex = 0xDEADBEEF; 2026-11-21T20:19:43Z; v1.2.3-rc4",
    "१२३ ٤٥٦ ৭৮৯ ２０２６ Ⅷ ½ ² ①②③ 〇一二三", "😀 😃😄 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷🇯🇵 ❤️ ☺ 🧑🏿‍🚀 #️⃣ 🫠",
    "你好，世界！今天天气很好。我们去公园吧。", "日本語のテキスト：カタカナ、ひらがな、漢字。ﾊﾝｶｸ　全角スペース", "안녕하세요 세계! 한국어 텍스트입니다.",
    "مرحبا بالعالم، كيف حالك؟ هَذَا نَصٌّ مُشَكَّل", "שלום עולם, מה שלומך? שָׁלוֹם", "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "नमस्ते दुनिया, यह हिन्दी है। क्षत्रिय", "Привет, мир! Ёлка и йогурт.", "Γειά σου Κόσμε! ΑΒΓ αβγς", "Xin chào thế giới, tiếng Việt",
    "cafe\u0301 café nai\u0308ve A\u030a Å \u212b q\u0307\u0323 q\u0323\u0307 \u1e9b\u0323 ﬁ ǅ", "Z\u0351\u036b\u0343\u036a\u0302a\u035b\u0353lg\u0321o\u0322",
    "\u0344 \u0958 \u2adc \uac00 \u1100\u1161\u11a8 \u1100\u1161 \uf900 \ufb1d \U0001d15e", "a\u0315\u0300\u05ae\u0062 \u0061\u05ae\u0300\u0315",
    "   leading", "trailing   ", "a  b   c    d", "\t\ttabs\t and \t spaces ", "\n", "\n\n", "\n\n\n  \n x", " \n \n", "a\n\n\nb\r\nc\rd",
    "a\u00a0b\u00a0\u00a0c", "a\u3000b\u3000\u3000c", "a\u2003b\u2009\u200ac\u200bd\u2028e\u2029f\u205fg\u202fh\u1680i\u180ej\u0085k", "\ufeffbom",
    "\x00\x01\x02\x07\x08\x0b\x0c\x0e\x1b\x1f\x7f", "\u0080\u009f\u00ad\u200b\u200c\u200d\u2060", "\ue000\uf8ff\ufdd0\uffff\U0010ffff",
    "!!! ??? ... --- ___ *** /// \\\\\\ ((())) [[]] {{}} <<>> && || == != => -> :: ;;", "¡¿«»“”‘’–—…•§¶†‡€£¥©®™°±×÷",
    "it's IT'S don't DON'T we'll WE'LL I'm I'M you'd YOU'D they've 'sup 'ſ 'twas ''s 's'", "a'b 'c' ''d'' ’s",
    "http://example.com/a/b?c=d&e=f#g user@example.org C:\\Users\\x /usr/lib/x.so.1", "snake_case camelCase PascalCase kebab-case SCREAMING_CASE __init__ a1b2c3",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis", "a" * 300, "ab" * 200, "1" * 100, " " * 257 + "x", "=" * 120,
    "é" * 100, "漢" * 60, "😀" * 40, "-" * 79 + "\n" + "-" * 79, "\n" * 50, "\t" * 33 + "x", "e\u0301" * 50, "x" + "\u0301\u0323" * 40,
    "<|endoftext|>", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>b", "<|im_end|><|im_end|>", " <|im_start|> x <|im_end|> ",
    "<|im_start", "im_start|>", "<|im_start|><|im_start", "<|<|im_end|>|>", "<repo_name>x<file_sep>y<filename>", "<s>a</s>", "<unk> <pad>", "<0x41><0x0A>",
    "word TOK words TOKx xTOK _TOK_ é TOKé (TOK) TOK", "a [L] b[L]c   [L]", "a [R] b[R]c [R]   \n d", "a  [B]  b\u00a0[B]\u3000c[B][B] [B]", "norm café cafe\u0301 NORM xNORMx",
    "▁ ▁▁a a▁b", "Ġ Ċ ĉ âĢĻ Ńx", "fi\ufb01 ² ℌ", "Straße ẞ İstanbul ı ſ K Å", "\U0001f1e6", "\u200d", "\ufe0f", "\u0301", "\u0301a", " \u0301", "1\u0301 2\u20e3",
    "ᚠᛇᚻ ᠮᠣᠩᠭᠣᠯ ⠃⠗⠇ 𝔘𝔫𝔦 𝟘𝟙𝟚 𐍈𐌰 𒀀 ⅓ ㍿ ㎏ ꙮ", "ABC\u0300\u0301\u0302\u0303def", "ｆｕｌｌ ＷＩＤＴＨ １２３ ！", "\ud7b0\ud7cb \u115f\u3164\uffa0",
]
# Bytes that are not UTF-8, read as Python reads them with errors="replace".
BROKEN = [b"\xff", b"a\xffb", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xf0\x9f\x98 \xf0\x9f\x98\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
          b"\xe0\x80\x80", b"\x80\x80abc\xbf", b"caf\xe9 na\xefve", b"\xf8\x88\x80\x80\x80", b"<|im_end|>\xe2<|im_end|>", b"\xc3", b" \xc3 \xa9"]

POOLS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "    \t\n\r", "\u00a0\u3000\u2003\u2028\u0085\u180e\u200b", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "'s't'ret'll'd", "éèêëàâäîïôöûüçñß", "\u0300\u0301\u0302\u0308\u0323\u0327\u0338\u05b0\u064b\u0e31\u093c", "你好世界天地玄黄宇宙洪荒", "あいうえおアイウエオ", "가각힣ᄀ\u1161\u11a8",
    "אבגדה", "ابتثج", "กขคงจ", "कखगघङ\u094d\u093f", "абвгдАБВГД", "αβγδΑΒΓΔ", "😀👍🏽👩\u200d🚀🇩🇪\ufe0f", "²½①Ⅷ٣५２", "€£¥§©®™°±×", "\x00\x01\x1b\x7f\u0080\ufeff\u200d",
]
FRAGMENTS = ["<|im_start|>", "<|im_end|>", "TOK", "[L]", "[R]", "[B]", "NORM", "<s>", "</s>", "▁", "Ġ", " the", "'s ", "\r\n", "  "]


def random_texts(count):
    rng = random.Random(20240229)
    texts = []
    for _ in range(count):
        pools = rng.sample(POOLS, rng.randint(1, 4)) + [POOLS[0]]
        parts = []
        for _ in range(rng.randint(1, 14)):
            roll = rng.random()
            if roll < 0.06:
                parts.append(rng.choice(FRAGMENTS))
            elif roll < 0.12:
                while True:  # any assigned character of the basic planes that the versions of Unicode agree on
                    c = chr(rng.randrange(0x20, 0x3000))
                    if unicodedata.ucd_3_2_0.category(c)[0] in "LNPZSM":
                        parts.append(c)
                        break
            else:
                parts.append("".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 3))))
        texts.append("".join(parts))
    return texts


def fnv(ids):
    value = 0xCBF29CE484222325
    for i in ids:
        for byte in i.to_bytes(4, "little"):
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"[:10]


def references(tokenizer, texts, special_in_text=True):
    tokenizer.encode_special_tokens = not special_in_text
    encode = lambda text, add: tokenizer.encode(text, add_special_tokens=add).ids
    curated = [encode(t, False) for t in CORPUS]
    result = {
        "curated": curated,
        "broken": [encode(b.decode("utf-8", errors="replace"), False) for b in BROKEN],
        "random": " ".join(fnv(encode(t, False)) for t in texts),
        "framed": encode("Hello world", True),
    }
    tokenizer.encode_special_tokens = True
    result["plain"] = [encode(t, False) for t in CORPUS if "<" in t]
    tokenizer.encode_special_tokens = False
    rng = random.Random(7)
    decodes = []
    for ids in curated[1:]:
        decodes.append([ids, True])
    size = tokenizer.get_vocab_size()
    for n in range(150):
        ids = [rng.randrange(size) for _ in range(rng.randint(1, 8))]
        decodes.append([ids, n % 2 == 0])
    result["decodes"] = [[ids if i >= len(CORPUS) - 1 else i + 1, skip, tokenizer.decode(ids, skip_special_tokens=skip)]
                         for i, (ids, skip) in enumerate(decodes)]
    return result


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n"
    assert len(text) < 400_000, (path, len(text))
    path.write_text(text)
    print(f"{path.relative_to(DATA.parent.parent)}: {len(text)} bytes")


def train(tokenizer, vocabulary, alphabet, special):
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    tokenizer.train_from_iterator([t for t in CORPUS if len(set(t)) > 3] * 3, trainer)


def flagged():
    return [AddedToken("TOK", single_word=True, normalized=False), AddedToken("[L]", lstrip=True, normalized=False),
            AddedToken("[R]", rstrip=True, normalized=False), AddedToken("[B]", lstrip=True, rstrip=True, normalized=False),
            AddedToken("NORM", normalized=True), AddedToken("caf\u00e9", normalized=True)]


CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(split, normalizer=None, add_prefix_space=False, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    own = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=split is None or isinstance(split, pre_tokenizers.Digits))
    tokenizer.pre_tokenizer = own if split is None else pre_tokenizers.Sequence([split, own])
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, 700, pre_tokenizers.ByteLevel.alphabet(), CHAT)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def digits():
    tokenizer = byte_level(pre_tokenizers.Digits(individual_digits=True))
    tokenizer.add_tokens(flagged())
    return tokenizer


def gpt2():
    return byte_level(None, add_prefix_space=True)


def llama3():
    tokenizer = byte_level(pre_tokenizers.Split(Regex(LLAMA3), "isolated"), ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin_of_text|>"])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    return tokenizer


def qwen2():
    tokenizer = byte_level(pre_tokenizers.Split(Regex(QWEN2), "isolated"), normalizers.NFC())
    tokenizer.add_tokens(flagged())
    return tokenizer


def sentencepiece(normalizer, pre_tokenizer, decoder, fallback=True):
    special = ["<unk>", "<s>", "</s>"] + ([f"<0x{i:02X}>" for i in range(256)] if fallback else [])
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    if normalizer:
        tokenizer.normalizer = normalizer
    # Words are learnt from pieces without blanks inside, whatever the tokenizer itself cuts.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    train(tokenizer, 700, [], special)
    state = json.loads(tokenizer.to_str())
    state["pre_tokenizer"] = json.loads(pre_tokenizer.__getstate__()) if pre_tokenizer else None
    state["added_tokens"] = [t for t in state["added_tokens"] if t["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoder
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tokenizer


def metaspace():
    return sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=True),
                         decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]))


def legacy():
    tokenizer = sentencepiece(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None,
                              decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]))
    tokenizer.add_tokens(flagged())
    return tokenizer


def unfused():
    return sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="always", split=False), decoders.Metaspace(prepend_scheme="always"), False)


def gemma():
    return sentencepiece(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
                         decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))


def smollm2(path):
    import gguf
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, kinds) if kind == 3])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="GGUF file of SmolLM2-135M-Instruct")
    arguments = parser.parse_args()
    texts = random_texts(3000)
    write(DATA / "tokenizer_texts.json", {"curated": CORPUS, "broken": [b.hex() for b in BROKEN], "random": texts})
    for make in (digits, gpt2, llama3, qwen2, metaspace, legacy, unfused, gemma):
        tokenizer = make()
        folder = DATA / f"tokenizer_{make.__name__}"
        write(folder / "tokenizer.json", json.loads(tokenizer.to_str()))
        write(folder / "references.json", references(tokenizer, texts))
    if arguments.model:
        write(DATA / "tokenizer_smollm2.json", references(smollm2(arguments.model), texts))


if __name__ == "__main__":
    main()

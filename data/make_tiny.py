#!/usr/bin/env python3
"""make_tiny.py - write tiny.gguf: make_tiny.py [FILE]

A random model in the shape of SmolLM2, so that there is text in and text out
without a network: llama, 4 layers of 4 heads (2 kv), d_model 64, Q8_0, tied.
It has learned nothing. Its tokenizer has: a byte-level BPE whose merges come
from the text below (Lincoln at Gettysburg, 1863; public domain). The standard
library alone, and the same bytes every time.

GGUF v3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""
import os
import random
import re
import struct
import sys
from collections import Counter

TEXT = """Four score and seven years ago our fathers brought forth on this
continent, a new nation, conceived in Liberty, and dedicated to the proposition
that all men are created equal. Now we are engaged in a great civil war,
testing whether that nation, or any nation so conceived and so dedicated, can
long endure. We are met on a great battle-field of that war. We have come to
dedicate a portion of that field, as a final resting place for those who here
gave their lives that that nation might live. It is altogether fitting and
proper that we should do this. But, in a larger sense, we can not dedicate --
we can not consecrate -- we can not hallow -- this ground. The brave men,
living and dead, who struggled here, have consecrated it, far above our poor
power to add or detract. The world will little note, nor long remember what we
say here, but it can never forget what they did here. It is for us the living,
rather, to be dedicated here to the unfinished work which they who fought here
have thus far so nobly advanced. It is rather for us to be here dedicated to
the great task remaining before us -- that from these honored dead we take
increased devotion to that cause for which they gave the last full measure of
devotion -- that we here highly resolve that these dead shall not have died in
vain -- that this nation, under God, shall have a new birth of freedom -- and
that government of the people, by the people, for the people, shall not perish
from the earth."""

SEED = 1863
N_LAYERS, N_HEADS, N_KV_HEADS, D_HEAD, D_MLP, N_CTX = 4, 4, 2, 16, 128, 512
D_MODEL = N_HEADS * D_HEAD
SPECIAL = ["<|endoftext|>"]
N_MERGES = 127
D_VOCAB = len(SPECIAL) + 256 + N_MERGES
ALIGNMENT = 32

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9   # types of values
TYPE_F32, TYPE_Q8_0 = 0, 8                              # types of tensors


def byte_letters():
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in letters]
    letters.update((byte, chr(256 + i)) for i, byte in enumerate(others))
    return [letters[byte] for byte in range(256)]


def learn_merges(text):
    """The most frequent pair, again and again; ties by spelling."""
    letters = byte_letters()
    pieces = re.findall(r" ?[A-Za-z]+| ?[^\sA-Za-z]+|\s", text)
    words = Counter(tuple(letters[byte] for byte in piece.encode())
                    for piece in pieces)
    merges = []
    while len(merges) < N_MERGES:
        pairs = Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {merge(word, best): times for word, times in words.items()}
    return merges


def merge(word, pair):
    out, i = [], 0
    while i < len(word):
        if word[i:i + 2] == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, what):
    if kind == STRING:
        return string(what)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind],
                       what)


def entry(key, kind, what, item=None):
    """One key and its value; item: the type within an array."""
    out = string(key) + struct.pack("<I", kind)
    if kind != ARRAY:
        return out + value(kind, what)
    return (out + struct.pack("<IQ", item, len(what))
            + b"".join(value(item, one) for one in what))


def q8_0(values):
    """Blocks of 32: a half-precision scale, then 32 signed bytes."""
    out = []
    for at in range(0, len(values), 32):
        block = values[at:at + 32]
        scale = max(map(abs, block)) / 127
        out.append(struct.pack("<e32b", scale,
                               *(round(x / scale) for x in block)))
    return b"".join(out)


def matrix(rng, rows, columns, deviation):
    return (columns, rows), TYPE_Q8_0, q8_0(
        [rng.gauss(0, deviation) for _ in range(rows * columns)])


def gain():
    return (D_MODEL,), TYPE_F32, struct.pack(f"<{D_MODEL}f", *[1.0] * D_MODEL)


def tensors():
    """name -> (sizes with the innermost first, type, bytes)"""
    rng = random.Random(SEED)
    d_kv = N_KV_HEADS * D_HEAD
    # Queries and keys are large enough for heads that look somewhere.
    yield "token_embd.weight", matrix(rng, D_VOCAB, D_MODEL, 0.5)
    for layer in range(N_LAYERS):
        for name, rows, columns, deviation in (
                ("attn_q", D_MODEL, D_MODEL, 0.25),
                ("attn_k", d_kv, D_MODEL, 0.25),
                ("attn_v", d_kv, D_MODEL, 0.12),
                ("attn_output", D_MODEL, D_MODEL, 0.12),
                ("ffn_gate", D_MLP, D_MODEL, 0.12),
                ("ffn_up", D_MLP, D_MODEL, 0.12),
                ("ffn_down", D_MODEL, D_MLP, 0.09)):
            yield (f"blk.{layer}.{name}.weight",
                   matrix(rng, rows, columns, deviation))
        yield f"blk.{layer}.attn_norm.weight", gain()
        yield f"blk.{layer}.ffn_norm.weight", gain()
    yield "output_norm.weight", gain()


def metadata():
    merges = learn_merges(TEXT)
    tokens = SPECIAL + byte_letters() + [a + b for a, b in merges]
    control, normal = 3, 1
    kinds = [control] * len(SPECIAL) + [normal] * (256 + N_MERGES)
    return [
        entry("general.architecture", STRING, "llama"),
        entry("general.name", STRING, "tiny random model"),
        entry("general.license", STRING, "gpl-3.0"),
        entry("general.file_type", U32, 7),
        entry("llama.vocab_size", U32, D_VOCAB),
        entry("llama.context_length", U32, N_CTX),
        entry("llama.embedding_length", U32, D_MODEL),
        entry("llama.block_count", U32, N_LAYERS),
        entry("llama.feed_forward_length", U32, D_MLP),
        entry("llama.attention.head_count", U32, N_HEADS),
        entry("llama.attention.head_count_kv", U32, N_KV_HEADS),
        entry("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        entry("llama.rope.freq_base", F32, 10000.0),
        entry("llama.rope.dimension_count", U32, D_HEAD),
        entry("tokenizer.ggml.model", STRING, "gpt2"),
        entry("tokenizer.ggml.pre", STRING, "smollm"),
        entry("tokenizer.ggml.tokens", ARRAY, tokens, STRING),
        entry("tokenizer.ggml.token_type", ARRAY, kinds, I32),
        entry("tokenizer.ggml.merges", ARRAY,
              [f"{a} {b}" for a, b in merges], STRING),
        entry("tokenizer.ggml.bos_token_id", U32, 0),
        entry("tokenizer.ggml.eos_token_id", U32, 0),
        entry("tokenizer.ggml.add_bos_token", BOOL, False),
        entry("tokenizer.ggml.add_space_prefix", BOOL, False),
        entry("general.quantization_version", U32, 2),
    ]


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def gguf():
    entries, infos, body = metadata(), [], b""
    for name, (sizes, kind, data) in tensors():
        infos.append(string(name) + struct.pack(
            f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, len(body)))
        body += padded(data)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(entries))
    return padded(head + b"".join(entries + infos)) + body


here = os.path.dirname(os.path.abspath(__file__))
path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "tiny.gguf")
with open(path, "wb") as out:
    out.write(gguf())

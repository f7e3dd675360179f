"""make.py - scores of attention heads, by transformers, TransformerLens, NumPy

    python make.py          # writes llama.npz, gpt2.npz, bert.npz beside itself

The tiny models of ../llama, ../gpt2 and ../bert run in transformers (eager
attention, float32) on three sequences (seed 5) of few different tokens, so
that many repeat. `mul` and `abs` come from TransformerLens's own
head_detector.py, masks included; the rest is written out here from the
definitions, one query at a time. Arrays are [seq, layer, head], NaN where no
query has such a key; ids0..ids2 are the sequences. head_detector's abs refuses
patterns that look ahead, and rounds to three digits: `abs` is written out from
its definition, and compared with it where that works.

transformers 5.24.0, TransformerLens 4.3.0, torch 2.13.0, NumPy 2.4.6.
"""
import os

import numpy as np
import torch
from transformer_lens import head_detector as detector
from transformers import AutoModel

HERE = os.path.dirname(os.path.abspath(__file__))
MASKS = {"previous": detector.get_previous_token_head_detection_pattern,
         "duplicate": detector.get_duplicate_token_head_detection_pattern,
         "following": detector.get_induction_head_detection_pattern}


def scores(p, ids):
    """{name: number} of one head's pattern p [query, key]."""
    n = len(ids)
    out, cells = {}, {}
    rows = range(1, n)
    out["entropy"] = np.mean([-sum(x * np.log2(x) for x in p[q] if x > 0)
                              for q in rows])
    out["distance"] = np.mean([sum(p[q, k] * abs(q - k) for k in range(n))
                               for q in rows])
    cells["previous"] = {q: [p[q, q - 1]] for q in rows}
    cells["first"] = {q: [p[q, 0]] for q in rows}
    cells["self"] = {q: [p[q, q]] for q in rows}
    cells["duplicate"] = {q: [p[q, k] for k in range(q) if ids[k] == ids[q]]
                          for q in rows}
    cells["following"] = {q: [p[q, k] for k in range(1, q + 1)
                              if ids[k - 1] == ids[q]] for q in rows}
    for name, of_query in cells.items():
        some = [x for x in of_query.values() if x]
        out[name] = np.mean([sum(x) for x in some]) if some else np.nan
        out[name + "_entry"] = (np.mean([y for x in some for y in x])
                                if some else np.nan)
    for name, mask in MASKS.items():
        if np.isnan(out[name]):
            out[name + "_mul"] = out[name + "_abs"] = np.nan
            continue
        m = mask(torch.tensor([ids]))
        def similar(how):
            return detector.compute_head_attention_similarity_score(
                torch.tensor(p), m, exclude_bos=False,
                exclude_current_token=False, error_measure=how)
        out[name + "_mul"] = similar("mul")
        out[name + "_abs"] = 1 - np.abs(p - m.numpy()).sum() / n
        if np.allclose(p, np.tril(p)):
            assert abs(out[name + "_abs"] - similar("abs")) < 6e-4
    return out


rng = np.random.default_rng(5)
for name in "llama gpt2 bert".split():
    model = AutoModel.from_pretrained(os.path.join(HERE, "..", name),
                                      attn_implementation="eager")
    model.eval()
    tokens = rng.choice(np.arange(20, model.config.vocab_size), 7, False)
    sequences = [rng.choice(tokens, n) for n in (12, 17)]
    sequences.append(rng.permutation(tokens))           # nothing repeats
    arrays, table = {}, {}
    for i, ids in enumerate(sequences):
        arrays[f"ids{i}"] = ids.astype(np.int32)
        with torch.no_grad():
            layers = model(torch.tensor([ids]),
                           output_attentions=True).attentions
        got = [[scores(p.double().numpy(), ids.tolist()) for p in layer[0]]
               for layer in layers]
        for key in got[0][0]:
            table.setdefault(key, []).append(
                [[head[key] for head in layer] for layer in got])
    for key, value in table.items():
        arrays[key] = np.array(value, dtype=np.float32)
    np.savez_compressed(os.path.join(HERE, name + ".npz"), **arrays)

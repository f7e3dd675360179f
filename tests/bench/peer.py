"""peer.py - the peers' side of bench.py, run by the peers' own Python

    peer.py cold WHAT DIR      one process: open, run 14 tokens, print the
                               shape of layer 0's pattern
    peer.py serve DIR          answer requests, as worker.lua does

WHAT: safetensors or gguf (transformers), lens (TransformerLens).
DIR holds smollm2-hf/ and smollm2.gguf.
"""
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1",
                  TRANSFORMERS_VERBOSITY="error")
PROMPT = "When Mary and John went to the store, John gave a drink to"


def transformers_model(folder, attention, **options):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.set_grad_enabled(False)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention,
        **options).eval()


def cold(what, folder):
    hf = f"{folder}/smollm2-hf"
    if what == "lens":
        import torch
        from transformer_lens.model_bridge import TransformerBridge

        model = TransformerBridge.boot_transformers(hf, dtype=torch.float32)
        _, cache = model.run_with_cache(PROMPT, prepend_bos=False,
                                        names_filter=lambda name:
                                        name == "blocks.0.attn.hook_pattern")
        print(tuple(cache["blocks.0.attn.hook_pattern"].shape))
        return
    from transformers import AutoTokenizer

    if what == "gguf":
        from transformers import GgufConfig

        options = {"gguf_file": "smollm2.gguf"}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = transformers_model(
            folder, "eager", quantization_config=GgufConfig(dequantize=True),
            **options)
    else:
        tokenizer = AutoTokenizer.from_pretrained(hf)
        model = transformers_model(hf, "eager")
    out = model(**tokenizer(PROMPT, return_tensors="pt"),
                output_attentions=True)
    print(tuple(out.attentions[0].shape))


def serve(folder):
    import torch

    model = transformers_model(f"{folder}/smollm2-hf", "sdpa")

    def forward(ids):
        out = model(torch.tensor([ids]), use_cache=False, logits_to_keep=1)
        return int(out.logits[0, -1].argmax())

    def generate(ids):
        n, prompt = ids[0], ids[1:]
        out = model.generate(torch.tensor([prompt]), max_new_tokens=n,
                             min_new_tokens=n, do_sample=False)
        return " ".join(map(str, out[0, len(prompt):].tolist()))

    print("ready", flush=True)
    for line in sys.stdin:
        verb, *words = line.split()
        work = {"forward": forward, "generate": generate}[verb]
        print(work([int(word) for word in words]), flush=True)


if sys.argv[1] == "cold":
    cold(sys.argv[2], sys.argv[3])
else:
    serve(sys.argv[2])

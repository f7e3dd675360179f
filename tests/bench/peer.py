"""peer.py - the peers' side of bench.py, run by the peers' own Python

    peer.py cold WHAT DIR      one process: open, run 14 tokens, print the
                               shape of layer 0's pattern (llama: the logits')
    peer.py serve WHAT DIR     answer requests, as worker.lua does

WHAT: safetensors, gguf (transformers), lens (TransformerLens) or llama
(llama-cpp-python); serve knows transformers, lens and llama. DIR holds
smollm2-hf/ and smollm2.gguf. Each does its job as its users would: sdpa where
no pattern is wanted, only the logits that are wanted, hooks by name.
"""
import gc
import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1",
                  TRANSFORMERS_VERBOSITY="error")
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
PROMPT = "When Mary and John went to the store, John gave a drink to"


def open_transformers(folder, attention, **options):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention,
        **options).eval()


def open_lens(folder):
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    return TransformerBridge.boot_transformers(folder, dtype=torch.float32)


def open_llama(path, **options):
    from llama_cpp import Llama

    return Llama(path, n_threads=THREADS, n_threads_batch=THREADS,
                 verbose=False, **options)


def cold(what, folder):
    hf = f"{folder}/smollm2-hf"
    if what == "llama":
        model = open_llama(f"{folder}/smollm2.gguf", n_ctx=64, logits_all=True)
        model.eval(model.tokenize(PROMPT.encode(), add_bos=False))
        print(*model.scores[:model.n_tokens].shape)
        return
    if what == "lens":
        model = open_lens(hf)
        _, cache = model.run_with_cache(PROMPT, prepend_bos=False,
                                        names_filter=lambda name:
                                        name == "blocks.0.attn.hook_pattern")
        print(*cache["blocks.0.attn.hook_pattern"].shape[1:])
        return
    from transformers import AutoTokenizer

    if what == "gguf":
        from transformers import GgufConfig

        options = {"gguf_file": "smollm2.gguf"}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = open_transformers(
            folder, "eager", quantization_config=GgufConfig(dequantize=True),
            **options)
    else:
        tokenizer = AutoTokenizer.from_pretrained(hf)
        model = open_transformers(hf, "eager")
    out = model(**tokenizer(PROMPT, return_tensors="pt"),
                output_attentions=True)
    print(*out.attentions[0].shape[1:])


def best(rows):
    """The likeliest of each row, its value, its lead: rows [n, vocab]."""
    values, ids = rows.topk(2)
    return {"ids": ids[:, 0].tolist(), "values": values[:, 0].tolist(),
            "leads": (values[:, 0] - values[:, 1]).tolist()}


class Torch:
    """What the two on PyTorch share."""

    kept = None

    def batch(self, rest):
        return self.torch.tensor([[int(word) for word in part.split()]
                                  for part in rest.split("/")])

    def threads(self, rest):
        self.torch.set_num_threads(int(rest))
        return {}

    def rest(self, _):
        self.kept = None
        gc.collect()
        return {}

    def pair(self, rest):
        clean, corrupt, names = rest.split("/")
        self.clean, self.corrupt = self.batch(clean), self.batch(corrupt)
        self.right, self.wrong = map(int, names.split())
        self.look_at_clean()
        return {}

    def metric(self, logits):
        """[row]: the right name's logit over the wrong one's, at the end."""
        return logits[:, -1, self.right] - logits[:, -1, self.wrong]


class Transformers(Torch):
    def __init__(self, folder):
        import torch

        self.torch = torch
        self.model = open_transformers(f"{folder}/smollm2-hf", "sdpa")
        # min_new_tokens would forbid the end of the text, another greedy text.
        self.model.generation_config.eos_token_id = None

    def forward(self, rest):
        self.kept = self.model(self.batch(rest), use_cache=False,
                               logits_to_keep=1).logits
        return best(self.kept[:, -1])

    def generate(self, rest):
        n, ids = rest.split(" ", 1)
        prompt = self.batch(ids)
        out = self.model.generate(prompt, max_new_tokens=int(n),
                                  do_sample=False)
        return {"ids": out[0, prompt.shape[1]:].tolist()}

    def lens(self, rest):
        """All layers in one product; the last state is normed already."""
        inner, torch = self.model.model, self.torch
        states = self.model(self.batch(rest), output_hidden_states=True,
                            use_cache=False).hidden_states[1:]
        stack = torch.cat([inner.norm(torch.cat(states[:-1])), states[-1]])
        top = self.model.lm_head(stack).softmax(-1).topk(5)
        self.kept = top
        values, ids = top.values[:, -1], top.indices[:, -1]
        return {"ids": ids[:, 0].tolist(), "values": values[:, 0].tolist(),
                "leads": (values[:, 0] - values[:, 1]).tolist()}

    def states(self, ids):
        """Every residual stream, and every z [1, pos, head, d_head]."""
        heads, z = self.model.config.num_attention_heads, []
        hooks = [layer.self_attn.o_proj.register_forward_pre_hook(
            lambda _, args: z.append(args[0].unflatten(-1, (heads, -1))))
            for layer in self.model.model.layers]
        out = self.model(ids, output_hidden_states=True, use_cache=False)
        for hook in hooks:
            hook.remove()
        return out.hidden_states, z

    def look_at_clean(self):
        self.clean_states, self.clean_z = self.states(self.clean)
        self.corrupt_states, _ = self.states(self.corrupt)

    def patch(self, site):
        """What an expert writes: all positions (or heads) of a layer as one
        batch, and only the layers from it on."""
        torch, inner = self.torch, self.model.model
        pos = self.clean.shape[1]
        n = pos if site == "resid_pre" else self.clean_z[0].shape[2]
        each = torch.arange(n)
        rotary = inner.rotary_emb(self.clean_states[0],
                                  torch.arange(pos)[None])
        rows = []
        for start, first in enumerate(inner.layers):
            state = self.corrupt_states[start].repeat(n, 1, 1)
            hook = None
            if site == "resid_pre":
                state[each, each] = self.clean_states[start][0]
            else:
                def put(_, args, clean=self.clean_z[start][0]):
                    z = args[0].unflatten(-1, clean.shape[1:]).clone()
                    z[each, :, each] = clean.transpose(0, 1)
                    return (z.flatten(-2),)

                hook = first.self_attn.o_proj.register_forward_pre_hook(put)
            for layer in inner.layers[start:]:
                state = layer(state, position_embeddings=rotary)
            if hook:
                hook.remove()
            rows.append(self.metric(self.model.lm_head(
                inner.norm(state[:, -1:]))))
        return {"values": torch.cat(rows).tolist()}


class Lens(Torch):
    def __init__(self, folder):
        import torch

        self.torch = torch
        self.model = open_lens(f"{folder}/smollm2-hf")

    def record(self, rest):
        sites, ids = rest.split(" ", 1)
        only = None if sites == "every" else (
            lambda name: name.endswith(f"hook_{sites}"))
        _, self.kept = self.model.run_with_cache(self.batch(ids),
                                                 names_filter=only)
        last = self.model.cfg.n_layers - 1
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in (0, last)]
        if only is None:
            names.append(f"blocks.{last}.hook_resid_post")
        return {"values": [self.kept[name].norm().item() for name in names]}

    def sites(self, _):
        """Of the last `record every`."""
        return {"names": list(self.kept)}

    def lens(self, rest):
        from transformer_lens.tools.analysis.logit_lens import logit_lens

        layers = range(1, self.model.cfg.n_layers + 1)
        found = logit_lens(self.model, self.batch(rest), positions=None,
                           layers=layers, top_k=5, return_type="probs")
        self.kept = found
        values = found.values[:, 0, -1]         # [layer, batch, pos, k]
        ids = found.readout.top_ids[:, 0, -1]
        return {"ids": ids[:, 0].tolist(), "values": values[:, 0].tolist(),
                "leads": (values[:, 0] - values[:, 1]).tolist()}

    def look_at_clean(self):
        _, self.cache = self.model.run_with_cache(self.clean)

    def patch(self, site):
        from transformer_lens import patching

        sweep = (patching.get_act_patch_resid_pre if site == "resid_pre" else
                 patching.get_act_patch_attn_head_out_all_pos)
        grid = sweep(self.model, self.corrupt, self.cache,
                     lambda logits: self.metric(logits).sum())
        return {"values": grid.flatten().tolist()}


class Llama:
    def __init__(self, folder):
        self.model = open_llama(f"{folder}/smollm2.gguf", n_ctx=1024,
                                n_batch=512, n_ubatch=512)

    def threads(self, rest):
        import llama_cpp

        llama_cpp.llama_set_n_threads(self.model.ctx, int(rest), int(rest))
        return {}

    def rest(self, _):
        return {}

    def forward(self, rest):
        import llama_cpp
        import numpy

        self.model.reset()
        self.model.eval([int(word) for word in rest.split()])
        logits = numpy.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(self.model.ctx, -1),
            shape=(self.model.n_vocab(),))
        second, first = numpy.argpartition(logits, -2)[-2:]
        return {"ids": [int(first)], "values": [float(logits[first])],
                "leads": [float(logits[first] - logits[second])]}

    def generate(self, rest):
        n, *prompt = map(int, rest.split())
        self.model.reset()
        ids = self.model.generate(prompt, temp=0.0)
        return {"ids": [next(ids) for _ in range(n)]}


def serve(what, folder):
    peer = {"transformers": Transformers, "lens": Lens, "llama": Llama}[what](
        folder)
    print("ready", flush=True)
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        try:
            answer = getattr(peer, verb)(rest)
        except Exception as error:      # told to bench.py, which ends
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


{"cold": cold, "serve": serve}[sys.argv[1]](*sys.argv[2:])

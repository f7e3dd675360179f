"""make.py - settings that the families' own oracles do not have

    python make.py          # writes a folder for each beside itself

Tiny random models (seed 7) run by transformers in float32, eager attention:
two sequences, the second shorter and padded on the right. Kept: the input of
block 1, and the logits.

transformers 5.24.0, torch 2.13.0, gguf 0.19.0.
"""
import math
import os

import gguf
import numpy
import torch
import transformers
from safetensors.torch import save_file

WIDTH = dict(vocab_size=48, hidden_size=24, intermediate_size=32,
             num_hidden_layers=3, num_attention_heads=3,
             max_position_embeddings=64)
YARN = dict(rope_type="yarn", rope_theta=500.0, factor=4.0,
            original_max_position_embeddings=16)
LONG = dict(rope_type="longrope", rope_theta=1000.0,
            short_factor=[1.0, 1.25, 1.5, 3.0], long_factor=[2.0] * 4)

SETTINGS = {
    "qwen2_window": ("Qwen2", dict(use_sliding_window=True, sliding_window=4,
                                   max_window_layers=1,
                                   num_key_value_heads=1)),
    "qwen3_layers": ("Qwen3", dict(
        use_sliding_window=True, sliding_window=3, head_dim=10,
        num_key_value_heads=3, tie_word_embeddings=True,
        layer_types=["sliding_attention", "full_attention",
                     "sliding_attention"])),
    "qwen2_yarn": ("Qwen2", dict(rope_parameters=YARN,
                                 num_key_value_heads=3)),
    "mistral_dynamic": ("Mistral", dict(
        rope_parameters=dict(rope_type="dynamic", rope_theta=100.0,
                             factor=2.0),
        sliding_window=None, num_key_value_heads=1)),
    "phi3_long": ("Phi3", dict(rope_parameters=LONG, num_key_value_heads=1,
                               original_max_position_embeddings=32,
                               pad_token_id=0, sliding_window=5)),
    "phi_qk": ("Phi", dict(qk_layernorm=True, num_key_value_heads=1,
                           layer_norm_eps=0.01)),
    "gpt_neox_in_turn": ("GPTNeoX", dict(use_parallel_residual=False,
                                         attention_bias=False,
                                         hidden_act="gelu_new")),
    "opt_post_norm": ("OPT", dict(do_layer_norm_before=False,
                                  enable_bias=False, ffn_dim=32,
                                  word_embed_proj_dim=24,
                                  activation_function="gelu")),
    "roberta_pads": ("Roberta", dict(hidden_act="relu", pad_token_id=3)),
    # as GGUF, under gguf's names; llama.cpp's converter stacks GPT-NeoX's q,
    # k and v
    "qwen3_gguf": ("Qwen3", dict(head_dim=10, num_key_value_heads=1)),
    "phi3_gguf": ("Phi3", dict(rope_parameters=LONG, num_key_value_heads=1,
                               original_max_position_embeddings=32,
                               pad_token_id=0, sliding_window=5)),
    "phi_gguf": ("Phi", dict(num_key_value_heads=1)),
    "gpt_neox_gguf": ("GPTNeoX", dict(rotary_pct=0.5)),
    "distilbert_relu": ("DistilBert", dict(dim=24, hidden_dim=32, n_layers=3,
                                           n_heads=3, activation="relu")),
}
LENGTHS = (14, 9)
ARCHITECTURES = {"Qwen3": "qwen3", "Phi3": "phi3", "Phi": "phi2",
                 "GPTNeoX": "gptneox"}


def write_gguf(path, kind, model):
    c, arch = model.config, ARCHITECTURES[kind]
    w = gguf.GGUFWriter(path, arch)
    rope = c.rope_parameters
    d_head = getattr(c, "head_dim", None) or 8
    eps = getattr(c, "rms_norm_eps", None) or c.layer_norm_eps
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(getattr(c, "num_key_value_heads",
                                c.num_attention_heads))
    w.add_key_length(d_head)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_rope_dimension_count(
        int(d_head * rope.get("partial_rotary_factor", 1)))
    if kind in ("Phi3", "Qwen3"):
        w.add_layer_norm_rms_eps(eps)
    else:
        w.add_layer_norm_eps(eps)
    if kind == "GPTNeoX":
        w.add_parallel_residual(c.use_parallel_residual)
    if kind == "Phi3":
        old = c.original_max_position_embeddings
        w.add_sliding_window(c.sliding_window)
        w.add_rope_scaling_orig_ctx_len(old)
        w.add_rope_scaling_attn_factors(math.sqrt(
            1 + math.log(c.max_position_embeddings / old) / math.log(old)))
        for which in ("short", "long"):
            w.add_tensor(f"rope_factors_{which}.weight",
                         numpy.array(rope[which + "_factor"], "f4"))
    names = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch],
        c.num_hidden_layers)
    for name, t in model.state_dict().items():
        if "query_key_value" in name:
            heads = c.num_attention_heads
            t = t.reshape(heads, 3, d_head, -1).transpose(0, 1)
            t = t.reshape(3 * heads * d_head, -1).squeeze(-1)
        new = names.get_name(name, (".weight", ".bias"))
        w.add_tensor(new, t.float().contiguous().numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


here = os.path.dirname(os.path.abspath(__file__))
for name, (kind, settings) in SETTINGS.items():
    torch.manual_seed(7)
    config = getattr(transformers, kind + "Config")(**{**WIDTH, **settings})
    config._attn_implementation = "eager"
    masked = kind in ("Roberta", "DistilBert")
    model = getattr(transformers, kind
                    + ("ForMaskedLM" if masked else "ForCausalLM"))(config)
    model.eval()
    with torch.no_grad():
        for p in model.parameters():    # nothing stays at 0 or 1
            p.add_(torch.randn_like(p) * 0.15)
        ids = torch.randint(4, 48, (2, max(LENGTHS)))
        mask = torch.zeros_like(ids)
        for row, n in enumerate(LENGTHS):
            mask[row, :n] = 1
        if name == "roberta_pads":      # within the text, where it is seen
            ids[0, 5], ids[1, 3] = 3, 3
        out = model(input_ids=ids, attention_mask=mask,
                    output_hidden_states=True)
    folder = os.path.join(here, name)
    if name.endswith("_gguf"):
        os.makedirs(folder, exist_ok=True)
        write_gguf(folder + "/F32.gguf", kind, model)
    else:
        model.save_pretrained(folder)
    if os.path.exists(folder + "/generation_config.json"):
        os.remove(folder + "/generation_config.json")
    save_file({"input_ids": ids, "attention_mask": mask,
               "blocks.1.hook_resid_pre": out.hidden_states[1].contiguous(),
               "logits": out.logits.contiguous()},
              folder + "/activations.safetensors")

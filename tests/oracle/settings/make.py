"""make.py - settings that the families' own oracles do not have

    python make.py          # writes a folder for each beside itself

Tiny random models (seed 7) run by transformers in float32, eager attention:
two sequences, the second shorter and padded on the right. Kept: the input of
block 1, and the logits.

transformers 5.24.0, torch 2.13.0.
"""
import os

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
    "distilbert_relu": ("DistilBert", dict(dim=24, hidden_dim=32, n_layers=3,
                                           n_heads=3, activation="relu")),
}
LENGTHS = (14, 9)

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
    model.save_pretrained(folder)
    if os.path.exists(folder + "/generation_config.json"):
        os.remove(folder + "/generation_config.json")
    save_file({"input_ids": ids, "attention_mask": mask,
               "blocks.1.hook_resid_pre": out.hidden_states[1].contiguous(),
               "logits": out.logits.contiguous()},
              folder + "/activations.safetensors")

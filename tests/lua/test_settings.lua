-- test_settings.lua - what a configuration says is honoured, or is an error
-- that names it
--
-- Truth are the models of tests/oracle, which agree with transformers
-- (tests/c/test_model.c); each row changes one setting in a copy. A setting
-- of some effect must move the logits; one that is only written in another
-- dialect must not; one that is not built is refused by name.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

local ids <const> = {5, 6, 7, 5, 9, 11, 4, 8, 10}

local function read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

local function write(path, bytes)
  local f <close> = assert(io.open(path, "wb"))
  f:write(bytes)
end

assert(os.execute "rm -rf changed && mkdir changed")

-- The oracle's model where `from` (plain text) in its config is `to`.
local function changed(oracle, from, to)
  local folder <const> = srcdir .. "/tests/oracle/" .. oracle
  local config <const> = read(folder .. "/config.json")
  local begin <const>, stop <const> = config:find(from, 1, true)
  assert(begin, from)
  os.remove "changed/model.safetensors"
  write("changed/model.safetensors", read(folder .. "/model.safetensors"))
  write("changed/config.json",
        config:sub(1, begin - 1) .. to .. config:sub(stop + 1))
  return qkv.open "changed"
end

local function apart(oracle, m)
  local truth <const> = qkv.open(srcdir .. "/tests/oracle/" .. oracle)
  return (m:run(ids, {logits = "all"}).logits
          - truth:run(ids, {logits = "all"}).logits):abs():max()
end

---- honoured ----

for _, row in ipairs{
  {"mistral", '"sliding_window": 6', '"sliding_window": 5'},
  {"mistral", '"sliding_window": 6', '"sliding_window": null'},
  {"phi3", '"sliding_window": 7', '"sliding_window": 3'},
  {"settings/qwen2_window", '"layer_types"', '"max_window_layers": 2, "x"'},
  {"settings/qwen2_window", '"use_sliding_window": true',
   '"use_sliding_window": false, "layer_types": null, "x": 0'},
  {"settings/qwen3_layers", '"full_attention"', '"sliding_attention"'},
  {"qwen2", '"rope_scaling": null',
   '"rope_scaling": {"type": "linear", "factor": 2.0}'},
  {"qwen2", '"rope_scaling": null', '"rope_scaling": {"type": "yarn", '
   .. '"factor": 4.0, "original_max_position_embeddings": 16}'},
  {"settings/qwen2_yarn", '"factor": 4.0',
   '"factor": 4.0, "attention_factor": 1.0'},
  {"gpt_neox", '"rotary_pct": 0.25', '"rotary_pct": 0.5'},
  {"gpt_neox", '"use_parallel_residual": true',
   '"use_parallel_residual": false'},
  {"gpt_neox", '"rotary_emb_base": 10000.0', '"rotary_emb_base": 100.0'},
  {"phi", '"partial_rotary_factor": 0.5', '"partial_rotary_factor": 1.0'},
  {"phi", '"layer_norm_eps": 0.001', '"layer_norm_eps": 0.1'},
  {"opt", '"do_layer_norm_before": true', '"do_layer_norm_before": false'},
  {"opt", '"_remove_final_layer_norm": false',
   '"_remove_final_layer_norm": true'},
  {"opt", '"relu"', '"gelu"'},
  {"distilbert", '"gelu"', '"relu"'},
} do
  local moved <const> = apart(row[1], changed(table.unpack(row)))
  check.yes(moved > 1e-3, ("%s with %s moves by %g"):format(row[1], row[3],
                                                            moved))
end

---- the same said otherwise ----

for _, row in ipairs{
  {"gpt_neox", '"rotary_pct": 0.25,', ""},
  {"gpt_neox", '"use_parallel_residual": true,', ""},
  {"phi", '"partial_rotary_factor": 0.5,', ""},
  {"phi", '"qk_layernorm": false', '"qk_layernorm": null'},
  {"qwen2", '"sliding_window": null', '"sliding_window": 2'},
  {"qwen2", '"rope_scaling": null',
   '"rope_scaling": {"type": "dynamic", "factor": 2.0}'},
  {"mistral", '"rope_parameters"', '"rope_theta": 10000.0, "x"'},
  {"distilbert", '"activation": "gelu",', ""},
  {"opt", '"activation_function": "relu",', ""},
  {"settings/qwen2_window", '"layer_types"', '"x"'},
  {"settings/phi3_long", '"longrope"', '"su"'},
} do
  check.near(apart(row[1], changed(table.unpack(row))), 0, 0,
             row[1] .. " with " .. row[3] .. " for " .. row[2])
end

---- refused ----

for _, row in ipairs{
  {"opt", '"word_embed_proj_dim": 48', '"word_embed_proj_dim": 32',
   "word_embed_proj_dim is 32"},
  {"opt", '"layer_norm_elementwise_affine": true',
   '"layer_norm_elementwise_affine": false', "layer_norm_elementwise_affine"},
  {"qwen2", '"rope_scaling": null', '"rope_scaling": {"type": "mrope"}',
   "rope scaling 'mrope'"},
  {"settings/qwen3_layers", '"full_attention"', '"chunked_attention"',
   "layer_types.1 is 'chunked_attention'"},
  {"settings/phi3_long", '"short_factor"', '"shorter"', "short_factor"},
  {"settings/qwen2_yarn", '"factor": 4.0', '"factor": 4.0, "beta_fast": -1',
   "beta_fast %-1"},
  {"gpt_neox", '"rotary_pct": 0.25', '"rotary_pct": 0.0',
   "0 rotary dimensions of 16"},
  {"roberta", '"is_decoder": false', '"is_decoder": true', "is_decoder"},
  {"roberta", '"pad_token_id": 1', '"pad_token_id": 41', "pad_token_id is 41"},
  {"mistral", '"sliding_window": 6', '"sliding_window": -6',
   "window of %-6 positions"},
  {"phi", '"qk_layernorm": false', '"qk_layernorm": true', "q_layernorm"},
  {"qwen3", '"silu"', '"mish"', "activation 'mish'"},
} do
  check.error(function() changed(row[1], row[2], row[3]) end, row[4],
              row[1] .. " with " .. row[3])
end

-- other frequencies hold for texts beyond the original context
local long <const> = qkv.open(srcdir .. "/tests/oracle/settings/phi3_long")
check.equal(long.config.n_ctx, 32, "longrope's texts end with the short ones")
-- two rows of the table are not positions, and a pad takes none
check.equal(qkv.open(srcdir .. "/tests/oracle/roberta").config.n_ctx, 40,
            "RoBERTa counts from pad_token_id + 1")
check.equal(qkv.open(srcdir .. "/tests/oracle/opt").config.n_ctx, 64,
            "OPT's table is longer than its context")

check.done()

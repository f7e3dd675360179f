--[[ e4_attention.lua - attention scores are scaled dot products, softmaxed

    qkv scripts/essay/e4_attention.lua [MODEL] [SEED] [FOLDER] [SAMPLES]

Question: is a head's pattern softmax(q.k / sqrt(d_head)) and its output the
mixture of values, in a real decoder and in a real encoder? Everything is
computed again outside the model's own code: q from the stream and W_Q, scores
from q and k, pattern, z; for all heads of three layers and SAMPLES (3) texts.
Model: SmolLM2-135M-Instruct, or any decoder or encoder that is named; one
without a tokenizer gets random tokens. What should come out: errors of float32
noise, 1e-5 or less; and large differences in the controls, in which one part
is left out: the scale, the rotation of q and k (models with rotary
positions), the right key head. Some seconds.
Source: Vaswani et al. 2017, eq. 1; grouped keys: Ainslie et al. 2023; rotary:
Su et al. 2021. It does not show that attention is what the model needs: only
that it is what the model does. Models with windows are not covered.
]]
local qkv <const> = require "qkv"
local essay <const> = dofile(
  (debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "essay.lua")
local say <const>, heading <const> = essay.say, essay.heading

local job <const> = essay.begin(arg, 3)
local m <const>, c <const> = job.m, job.m.config
local out <const> = {causal = c.causal}

---- the texts ----

local TEXTS <const> = {
  "When Mary and John went to the store, John gave a drink to Mary.",
  "The key to the cabinets is on the table, but the cabinets are locked.",
  "To be or not to be: that is the question that he asked himself."}
local inputs = {}
for i = 1, job.samples do
  local text <const> = TEXTS[(i - 1) % #TEXTS + 1]
  local readable <const>, ids = pcall(m.tokens, m, text)
  inputs[i] = i <= #TEXTS and readable and #ids <= c.n_ctx and text
    or essay.join(essay.bos(m), essay.random_tokens(m, 15, job.seed + i))
end

---- one layer by hand ----

local group <const> = c.n_heads // c.n_kv_heads
local key_head_of = {}
for head = 0, c.n_heads - 1 do key_head_of[head + 1] = head // group end

-- Keys or values [pos, head, d_head]: each head's own.
local function each_heads(t, which)
  return t:take{kv_head = which or key_head_of}:rename{kv_head = "head"}
end

-- q . k * scale, -inf where a causal query may not look.
local function scores_of(q, k, scale)
  local s <const> = scale
    * qkv.einsum("query head d_head, key head d_head -> head query key", q, k)
  local n <const> = s:size "key"
  if not c.causal then return s end
  return qkv.where(qkv.ones(n, n):triu(1):eq(1), -math.huge, s)
end

-- q [pos, head, d_head] from what the layer reads and its weights.
local function queries_of(r, layer)
  local x <const> = c.layout == "pre-norm" and r("ln1.normalized", layer)
                    or r("resid_pre", layer)
  local name <const> = ("blocks.%d.attn."):format(layer)
  local q = qkv.einsum("pos d_model, head d_model d_head -> pos head d_head", x,
                       m:weight(name .. "W_Q"))
  local biased <const>, bias = pcall(m.weight, m, name .. "b_Q")
  return biased and q + bias or q
end

-- Largest difference of two tensors, as a share of the larger of 1 and the
-- largest of the second.
local function error_of(got, want)
  local largest <const> = math.max(1, want:abs():max())
  return (got - want):abs():max() / largest
end

-- Half the absolute difference of the patterns' rows, [head]: 0 the same rows,
-- 1 nothing in common.
local function distance_of(p, q)
  return (p - q):abs():sum "key":mean "query" / 2
end

local layers <const> = {}
for _, layer in ipairs {0, c.n_layers // 2, c.n_layers - 1} do
  if layers[#layers] ~= layer then layers[#layers + 1] = layer end
end
local worst <const> = {query = 0, scores = 0, pattern = 0, z = 0}
local controls <const> = {unscaled = {}, unrotated = {}, other_key = {}}
local bits <const> = {scaled = {}, unscaled = {}}

local function keep(list, values)
  for _, v in ipairs(values:table()) do list[#list + 1] = v end
end

local function entropy_of(p)    -- [head], bits
  local logs <const> = qkv.where(p:le(0), 0, p:log() / math.log(2))
  return -(p * logs):sum "key":mean "query"
end

local rotary <const> = c.rotary_dim > 0
for _, input in ipairs(inputs) do
  local r <const> = m:run(input)
  for _, layer in ipairs(layers) do
    local q <const> = r(rotary and "rot_q" or "q", layer)
    local keys <const> = r(rotary and "rot_k" or "k", layer)
    local k <const> = each_heads(keys)
    local pattern <const> = r("pattern", layer)
    local s <const> = scores_of(q, k, c.attn_scale)
    local p <const> = s:softmax "key"
    local z <const> = qkv.einsum(
      "head query pos, pos head d_head -> query head d_head", p,
      each_heads(r("v", layer))):rename{query = "pos"}
    local function note(what, got, want)
      worst[what] = math.max(worst[what], error_of(got, want))
    end
    note("query", queries_of(r, layer), r("q", layer))
    note("pattern", p, pattern)
    note("z", z, r("z", layer))
    -- -inf less -inf is no number: where a query may not look, nothing is said
    local seen <const> = pattern:gt(0)
    note("scores", qkv.where(seen, s, 0),
         qkv.where(seen, r("attn_scores", layer), 0))

    local unscaled <const> = scores_of(q, k, 1):softmax "key"
    keep(controls.unscaled, distance_of(unscaled, pattern))
    keep(bits.scaled, entropy_of(pattern))
    keep(bits.unscaled, entropy_of(unscaled))
    if rotary then
      local flat <const> = scores_of(r("q", layer), each_heads(r("k", layer)),
                                     c.attn_scale):softmax "key"
      keep(controls.unrotated, distance_of(flat, pattern))
    end
    if c.n_kv_heads > 1 then
      local other = {}
      for i, h in ipairs(key_head_of) do other[i] = (h + 1) % c.n_kv_heads end
      local wrong <const> = scores_of(q, each_heads(keys, other),
                                      c.attn_scale):softmax "key"
      keep(controls.other_key, distance_of(wrong, pattern))
    end
  end
end

heading(("%s: %d layers x %d heads x %d texts computed again"):format(
  c.causal and "a decoder" or "an encoder", #layers, c.n_heads, #inputs))
for _, what in ipairs {"query", "scores", "pattern", "z"} do
  say("%-8s largest difference from the model's own: %.1e", what, worst[what])
  out[what] = worst[what]
end
heading "controls: how far the pattern moves when a part is left out (0 to 1)"
for _, row in ipairs {{"unscaled", "q.k without 1 / sqrt(d_head)"},
                      {"unrotated", "q and k before rotation"},
                      {"other_key", "another head's keys"}} do
  local x <const> = controls[row[1]]
  if #x > 0 then
    local e <const> = essay.bootstrap(x, job.seed)
    say("%-30s %s", row[2], essay.show(e))
    out[row[1]] = e
  else
    say("%-30s not in this model", row[2])
  end
end
say("95 %% intervals over heads, layers and texts")
out.bits = essay.bootstrap(bits.scaled, job.seed)
out.unscaled_bits = essay.bootstrap(bits.unscaled, job.seed)
say("entropy of a row: %s bits; without the scale %s",
    essay.show(out.bits), essay.show(out.unscaled_bits))

---- one head, shown ----

local r <const> = m:run(inputs[1])
local layer <const> = layers[math.min(2, #layers)]
-- the head whose last query is the surest, but not about itself or the first
local last <const> = r("pattern", layer):at{query = -1}
local n <const> = last:size "key"
local head <const> = last:slice{key = {from = 1, to = n - 1}}
  :max "key":argmax()
heading(("layer %d, head %d: one query, its scores and its mixture"):format(
  layer, head))
local scores <const> = r("attn_scores", layer)[head]
local pattern <const> = r("pattern", layer)[head]
say("q . k / sqrt(%d) of the last token with each, softmax:", c.d_head)
local weights <const>, keys = pattern[-1]:topk(math.min(5, n))
for i = 0, #weights - 1 do
  say("  %-12s score %7.2f  weight %.3f", r:piece(keys[i]),
      scores[-1][keys[i]], weights[i])
end
say("z: %s", tostring(r("z", layer)[-1][head]))
out.layer, out.head = layer, head
local where <const> = ("layer %d, head %d"):format(layer, head)
essay.draw(job, qkv.plot.grid({
  qkv.plot.heatmap(qkv.where(pattern:gt(0), scores, 0 / 0),
    {title = "Scores q.k / sqrt(d_head)", note = where, rows = r.pieces,
     cols = r.pieces, label = "score", xlabel = "key", ylabel = "query"}),
  qkv.plot.heatmap(pattern, {title = "Pattern: softmax of each row",
    note = where, rows = r.pieces, cols = r.pieces, range = {0, 1},
    label = "attention", xlabel = "key", ylabel = "query"})},
  {columns = 2}), "e4_attention.png")
return out

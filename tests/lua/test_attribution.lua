-- test_attribution.lua - shares of a logit sum to the logit
--
-- Oracle: the logits of the run; the parts by their definition from r's sites.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

local TOLERANCE <const> = 1e-3      -- the shares' sum against the logit
local ids <const> = {5, 6, 7, 5, 9, 11}

local function check_model(m, r, a, b)
  local name <const> = m.config.family
  local metric <const> = qkv.logit_diff(a, b)
  local has_bias <const> = pcall(m.weight, m, "blocks.0.attn.b_O")
  for by, field in pairs{layer = "attn", head = "heads", pos = "pos"} do
    local d = r:dla(metric, {by = by})
    check.near(d.total, r:measure(metric), TOLERANCE, name .. ": the metric")
    if by == "layer" or not has_bias then
      check.near(d.embed + d.bias + d.mlp:sum() + d[field]:sum(),
                 r:measure(metric), TOLERANCE, name .. ": the sum, by " .. by)
    end
  end
  local layers, heads = r:dla(metric), r:dla(metric, {by = "head"})
  local pos <const> = r:dla(metric, {by = "pos"})
  check.near(pos.pos:sum(), heads.heads:sum(), TOLERANCE,
             name .. ": positions sum to what heads do")
  local alone <const> = r:dla(qkv.logit_diff(a))
  check.near(alone.total, r:logit(a), TOLERANCE, name .. ": one logit")
  if has_bias then
    local biases = 0
    local w = m:weight "ln_final.w" * (m.unembed:at{vocab = a}:to "f32"
                                       - m.unembed:at{vocab = b}:to "f32")
    w = w - w:mean()                    -- LayerNorm takes the mean away
    for layer = 0, m.config.n_layers - 1 do
      biases = biases + qkv.dot(m:weight(("blocks.%d.attn.b_O"):format(layer)),
                                w)
    end
    check.near(heads.rest, biases / r("ln_final.scale"):at{pos = -1}:item(),
               TOLERANCE, name .. ": what is left are attention's biases")
  else
    check.near(heads.heads:sum "head", layers.attn, TOLERANCE,
               name .. ": heads sum to their layer")
  end
end

local tiny <const> = qkv.open(srcdir .. "/data/tiny.gguf")
check_model(tiny, tiny:run(ids), 4, 8)
local gpt2 <const> = qkv.open(srcdir .. "/tests/oracle/gpt2")
check_model(gpt2, gpt2:run(ids), 4, 8)

-- a head's share is what its result adds
local r <const> = tiny:run(ids)
local metric <const> = qkv.logit_diff(4, 8, {pos = 3})
local before <const> = r:dla(metric, {by = "head"})
local scale <const> = r("ln_final.scale")
local w <const> = (tiny.unembed:at{vocab = 4}:to "f32"
                   - tiny.unembed:at{vocab = 8}:to "f32")
                  * tiny:weight "ln_final.w"
check.near(before.heads:at{layer = 1, head = 1},
           qkv.dot(r("result", 1):at{pos = 3, head = 1}, w) / scale[3][0],
           TOLERANCE, "a head's share, from its result")
check.equal(#before:top(4), 4, "top")
check.yes(math.abs(before:top(2)[1].value) >= math.abs(before:top(2)[2].value),
          "the largest first")
check.yes(tostring(before):find "attribution by head", "printed")
local edited <const> = tiny:run(ids, {edits = {{site = "resid_mid", layer = 1,
                                 pos = -1, op = "add", value = 1}}})
check.yes(math.abs(edited:dla(qkv.logit_diff(4, 8)).rest) > 1e-4,
          "what an edit of the stream put in is told apart")

for _, row in ipairs{
  {"not linear", function() r:dla(qkv.prob(4)) end, "linear"},
  {"by", function() r:dla(metric, {by = "neuron"}) end, "by = "},
  {"an option", function() r:dla(metric, {bye = "pos"}) end, "unknown option"},
  {"post-norm", function() qkv.open(srcdir .. "/tests/oracle/bert"):run(ids)
   :dla(metric) end, "normalises the stream"},
  {"a batch", function() tiny:run{ids, ids}:dla(metric) end, "batch of 2"},
} do
  check.error(row[2], row[3], row[1])
end

local ok, big = pcall(qkv.open, "smollm2")
if ok then
  check_model(big, big:run("Then, when Mary and John went to the store, John "
    .. "gave a drink to"), " Mary", " John")
else
  check.skip "SmolLM2 is not here; scripts/tools/fetch smollm2 gets it"
end

check.done()

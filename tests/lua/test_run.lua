-- test_run.lua - models, runs and generation, as API.md has them
--
-- The tiny model that ships (random weights) for laws and errors; the tiny
-- oracles for numbers; SmolLM2, where it was fetched, for the real thing.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

local m <const> = qkv.open(srcdir .. "/data/tiny.gguf")
local c <const> = m.config
local prompt <const> = {5, 6, 7, 5, 9}

---- opening ----

check.yes(tostring(m):find "llama", "a model prints its family")
check.equal(m.embed.shape, {c.d_vocab, c.d_model}, "embed")
check.equal(m.unembed.axes, {"d_model", "vocab"}, "unembed")
check.equal(m:weight("blocks.1.attn.W_K").shape,
            {c.n_kv_heads, c.d_model, c.d_head}, "W_K")
check.error(function() m:weight "blocks.0.attn.W_Z" end, "did you mean",
            "a weight that is not there")
check.error(function() qkv.open "no-such-model" end, "no%-such%-model",
            "a model that is not there")
check.error(function() m:weight "blocks.99.attn.W_Q" end, "layer 99 of",
            "a layer that is not there")
check.yes(m:check(), "no NaN")
check.equal(#m:sites "pattern", c.n_layers, "sites of a short name")
check.error(function() m:sites "patern" end, "did you mean 'pattern'",
            "a site misspelt")

---- tokens ----

local text <const> = "The king said: 42 crowns."
check.equal(m:text(m:tokens(text)), text, "there and back")
check.equal(table.concat(m:pieces(text)), text, "pieces")
check.error(function() m:token "The king said" end, "one was expected",
            "not one token")
check.equal(m:text(m:tokens "\0\xff"), "\0\u{fffd}", "what is not UTF-8")

---- reading ----

local r <const> = m:run(prompt, {names = {"pattern", "blocks.*.hook_resid_p*"}})
check.equal(#r, 1, "one sequence")
check.equal(r.tokens:table(), prompt, "tokens")
check.equal(r("pattern", 1).shape, {c.n_heads, 5, 5}, "pattern")
check.equal(r("pattern").axes, {"layer", "head", "query", "key"}, "stacked")
check.near(r("pattern"):sum("key"), qkv.ones(c.n_layers, c.n_heads, 5), 1e-5,
           "rows of the pattern sum to 1")
check.near(r["blocks.0.attn.hook_z"], r("z", 0), 0, "full and short names")
check.near(r("resid_pre", 1), r("resid_post", 0), 0, "the stream goes on")
check.near(m:run(prompt)("mlp.post", -1), r("post", c.n_layers - 1), 1e-4,
           "kept with the pattern, computed now without")
check.near(m:run(prompt, {names = "mlp.post"})("mlp.post", -1),
           m:run(prompt)("mlp.post", -1), 0, "the same work, the same bits")
check.error(function() r("pattern", 99) end, "layer 99 of", "no such layer")
check.error(function() return r["blocks.0.attn.hook_pat"] end, "did you mean",
            "no such site")
check.error(function() r("resid_post", 0):fill_(0) end, "read",
            "what was kept is not changed")
check.equal(r.model == m, true, "r.model")
check.equal(r:pos(5, -1), 3, "the last 5")
local logits <const> = r.logits
check.equal(logits.shape, {5, c.d_vocab}, "logits")
local top <const> = r:top(3)
check.near(top[1].logit, logits[4]:max(), 1e-5, "top is the largest")
check.near(r:logit(7, 2), logits[2][7], 1e-4, "a logit in the middle")
check.near(r:prob(top[1].id), top[1].prob, 1e-6, "prob")
check.near(math.exp(r:logprob(top[1].id)), top[1].prob, 1e-6, "logprob")
local bits <const> = r:surprisal()
check.yes(bits[0] ~= bits[0], "the first token has no surprisal")
check.near(bits[3], -r:logprob(prompt[4], 2) / math.log(2), 1e-4, "surprisal")
local lens <const> = r:lens(2)
check.equal(lens[c.n_layers][5][1].id, top[1].id, "the lens ends in the logits")
check.near(lens[c.n_layers][5][1].prob, top[1].prob, 1e-5, "and its p")

---- batches ----

local batch <const> = m:run({prompt, {5}, "ab"}, {logits = "all"})
check.equal(#batch, 3, "three sequences")
check.error(function() batch("pattern", 0) end, "batch of 3",
            "a question to a batch")
check.near(batch:seq(0)("resid_post", -1), r("resid_post", -1), 1e-5,
           "batched and alone")
check.equal(batch:seq(1).logits.shape, {1, c.d_vocab}, "lengths differ")
check.equal(batch:stack("resid_post", {layer = 1}).shape, {3, c.d_model},
            "stack")
check.equal(m:hidden({prompt, {5}}).shape, {2, c.d_model}, "hidden")
check.equal(m:hidden({prompt}, {site = "embed"}).shape, {1, c.d_model},
            "hidden, before the layers")
check.error(function() m:hidden({prompt}, {layr = 1}) end,
            "unknown option 'layr'; did you mean 'layer'?", "hidden's options")
check.error(function() m:hidden({prompt}, {layer = 99}) end,
            "layer 99 of " .. c.n_layers, "hidden's layers")
check.error(function() m:hidden({prompt}, "mean") end, "options go in a table",
            "hidden's option")
check.near(m:hidden({prompt, {5}}, {normalize = true}):norm("d_model"),
           {1, 1}, 1e-5, "hidden, normalised")

---- starting later, stopping early ----

local later <const> = m:run(prompt, {start = {layer = 2,
                                              resid = r("resid_pre", 2)}})
check.near(later:logit(3), r:logit(3), 1e-4, "from layer 2 on")
check.error(function() later("q", 0) end, "layer 0 was not run", "before it")
local cut <const> = m:run(prompt, {stop_at = 1})
check.near(cut("resid_post", 0), r("resid_post", 0), 1e-4, "stopped")
check.error(function() cut:top(1) end, "stops at layer 1", "no logits")

---- edits ----

local function edited(e) return m:run(prompt, {edits = {e}}) end
local zero <const> = edited{site = "z", layer = 1, head = 1, pos = -1,
                            op = "zero"}
check.near(zero("z", 1):at{head = 1, pos = 4}, qkv.zeros(c.d_head), 0, "zero")
check.near(zero("z", 1):at{head = 0}, m:run(prompt)("z", 1):at{head = 0}, 0,
           "others stay")
check.yes(math.abs(zero:logit(3) - r:logit(3)) > 1e-6, "it changes the logits")
check.near(edited{site = "resid_pre", layer = 2, op = "scale", value = 1}
           :logit(3), m:run(prompt):logit(3), 0, "times 1")
check.near(edited{site = "blocks.1.hook_resid_pre", op = "add", value = 2}
           ("resid_pre", 1), r("resid_pre", 1) + 2, 1e-5, "add")
check.near(edited{site = "resid_post", layer = 0, value = r}:logit(3),
           r:logit(3), 1e-4, "its own values: no change")
local other <const> = m:run {1, 2, 3, 4, 9}
local patched <const> = m:run({1, 2, 3, 4, 9}, {edits = {
  {site = "resid_pre", layer = 2, value = r}}})
check.near(patched:logit(3), r:logit(3), 1e-4, "all of a layer patched")
check.yes(math.abs(other:logit(3) - r:logit(3)) > 1e-6, "unlike before")
local row <const> = edited{site = "pattern", layer = 0, head = {0, 1},
                           query = 3, key = {from = 0, to = 2}, value = 0.5}
check.near(row("pattern", 0):at{head = 1, query = 3}:slice{key = {from = 0,
           to = 2}}, {0.5, 0.5}, 0, "a pattern set")
check.near(row("pattern", 0):at{head = 1, query = 0}, {1, 0, 0, 0, 0}, 1e-6,
           "masked again")
for _, e in ipairs {
  {{site = "z", head = 99, op = "zero"}, "head 99"},
  {{site = "z", pos = 9, op = "zero"}, "pos 9"},
  {{site = "z", layr = 1, op = "zero"}, "did you mean 'layer'"},
  {{site = "resid_pre", head = 1, op = "zero"}, "no axis 'head'"},
  {{site = "z", op = "nought"}, "op 'nought'"},
  {{site = "z"}, "needs a value"},
  {{site = "z", value = qkv.ones(7)}, "along neuron"},
  {{op = "zero"}, "needs site"}} do
  check.error(function() edited(e[1]) end, e[2], e[2])
end

---- hooks ----

local seen, kept = {}, nil
local hooked <const> = m:run(prompt, {hooks = {
  {site = "resid_post", fn = function(t, at)
    seen[#seen + 1] = at.layer
    if at.layer == 1 then t:mul_(0) kept = t end
  end},
  {site = "z", layer = 2, fn = function(t) return t * 2 end}},
  names = {"resid_post", "z"}})
check.equal(seen, {0, 1, 2, 3}, "once a layer")
check.near(hooked("resid_post", 1), qkv.zeros(5, c.d_model), 0, "in place")
check.near(kept, qkv.zeros(5, c.d_model), 0, "a kept tensor stays")
check.error(function() hooked("pattern", 0) end, "names = ", "not run again")
check.error(function()
  m:run(prompt, {hooks = {{site = "z", fn = function() error "mine" end}}})
end, "mine", "an error in a hook")
check.error(function()
  m:run(prompt, {hooks = {{site = "z", fn = function() return qkv.ones(3, 7) end}}})
end, "hook at", "a wrong shape from a hook")
check.yes(m:run(prompt):top(1)[1].id == top[1].id, "the session goes on")

---- generation ----

local new <const>, ids <const>, whole <const> =
  m:generate(prompt, {n = 6, stop_at_eos = false})
check.equal(#ids, 6, "six tokens")
check.equal(#whole.pieces, 11, "the run has all")
local again = {table.unpack(prompt)}
for i = 1, 6 do
  local id <const> = m:run(again):top(1)[1].id
  check.equal(id, ids[i], "as without a cache, token " .. i)
  again[#again + 1] = id
end
local streamed = {}
local same <const> = m:generate(prompt, {n = 6, stop_at_eos = false,
  stream = function(p) streamed[#streamed + 1] = p end})
check.equal(table.concat(streamed), same, "streamed")
check.equal(same, new, "greedy twice")
local a <const> = m:generate(prompt, {n = 9, temperature = 1, seed = 3})
check.equal(m:generate(prompt, {n = 9, temperature = 1, seed = 3}), a, "seed")
check.equal(m:generate(prompt, {n = 4, temperature = 1, top_k = 1,
                                stop_at_eos = false}),
            m:generate(prompt, {n = 4, stop_at_eos = false}),
            "top_k = 1 is greedy")
check.equal(m:generate(prompt, {n = 4, temperature = 1, top_p = 1e-9,
                                stop_at_eos = false}),
            m:generate(prompt, {n = 4, stop_at_eos = false}),
            "a tiny top_p is greedy")
if #new > 2 then
  check.equal(m:generate(prompt, {n = 6, stop_at_eos = false,
                                  stop = new:sub(2, 3)}),
              new:sub(1, new:find(new:sub(2, 3), 1, true) - 1), "stop")
end
local ends, after
for seed = 1, 500 do
  local opts <const> = {n = 12, temperature = 5, seed = seed}
  ends = select(2, m:generate(prompt, opts))
  if #ends < 12 then
    opts.stop_at_eos = false
    after = select(2, m:generate(prompt, opts))
    break
  end
end
check.equal(ends[#ends], m.eos, "the end token ends it")
check.equal(#after, 12, "stop_at_eos = false goes on to n")
check.equal({table.unpack(after, 1, #ends)}, ends, "and says the same before")
local _, _, hooked_run <const> = m:generate(prompt, {n = 3, stop_at_eos = false,
  names = "pattern", edits = {{site = "z", layer = 0, pos = -1, op = "zero"}}})
check.near(hooked_run("pattern", 0):sum("key"), qkv.ones(c.n_heads, 8), 1e-5,
           "a pattern kept while generating")
check.near(hooked_run("z", 0):at{pos = 4}, qkv.zeros(c.n_heads, c.d_head), 0,
           "-1 is the prompt's end")

---- bad input ----

for _, row in ipairs {
  {function() m:run {} end, "empty"},
  {function() m:run "" end, "empty"},
  {function() m:run{c.d_vocab} end, "ids run 0"},
  {function() m:run{-1} end, "ids run 0"},
  {function() m:run(prompt, {nmaes = "q"}) end, "did you mean 'names'"},
  {function() m:run(prompt, {names = "patterm"}) end, "did you mean 'pattern'"},
  {function() m:run(prompt, {logits = "some"}) end, "logits"},
  {function() m:run(prompt, {stop_at = 77}) end, "stop_at 77"},
  {function() m:run(true) end, "input is a boolean"},
  {function() m:run{ids = {1}, types = {1, 0}} end, "1 ids but 2 types"},
  {function() m:generate(prompt, {temperature = -1}) end, "temperature"},
  {function() m:generate(prompt, {n = c.n_ctx}) end, "context is"},
  {function() r:top(3, 99) end, "position 99"},
  {function() return r.no_such end, "no_such"},
} do
  check.error(row[1], row[2], row[2])
end
local long = {}
for i = 1, c.n_ctx + 1 do long[i] = 1 end
check.error(function() m:run(long) end, "context is", "too long")

---- SmolLM2, against llama's reference in float32 ----

local ok <const>, real = pcall(qkv.open, "smollm2")
if ok then
  local p <const> = real:run
    "When Mary and John went to the store, John gave a drink to"
  check.equal(p:top(1)[1].piece, " Mary", "SmolLM2 knows who")
  check.near(p:prob " Mary", 0.923, 0.005, "and how surely")
  check.equal((real:generate("Once upon a time", {n = 6})),
              ", the city of Nova Haven", "SmolLM2 writes")
else
  check.skip("SmolLM2 is not there: scripts/tools/fetch smollm2")
end

check.done()

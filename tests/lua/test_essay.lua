-- test_essay.lua - the scripts of scripts/essay run, and their claims hold
--
-- On the tiny random models: the laws, and that nothing is found where nothing
-- is. On SmolLM2, where it was fetched, the numbers that the scripts' headers
-- claim; by qkv alone, since plain Lua runs the same code. Pictures go to the
-- test's own folder.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

local plain_lua <const> = arg ~= nil and arg[-1] ~= nil
local TINY <const> = srcdir .. "/data/tiny.gguf"
local has_gnuplot <const> = os.execute "command -v gnuplot >/dev/null 2>&1"

-- Run a script quietly; its table. Every picture is there.
local function essay(name, pictures, ...)
  local say <const>, printed = print, 0
  arg = {[0] = name, ...}
  print = function() printed = printed + 1 end
  local ok <const>, out = pcall(dofile, srcdir .. "/scripts/essay/" .. name)
  print = say
  check.yes(ok, ("%s %s: %s"):format(name, arg[1], tostring(out)))
  check.yes(printed > 5, name .. " prints its numbers")
  for _, picture in ipairs(has_gnuplot and pictures or {}) do
    local file <const> = io.open(picture, "rb")
    check.yes(file and file:read(4) == "\137PNG", name .. " draws " .. picture)
    if file then file:close() os.remove(picture) end
  end
  return ok and out or nil
end

local function within(e, what)
  check.yes(e.low <= e.mean and e.mean <= e.high, what .. " is in its interval")
end

---- E4: attention by hand ----

-- float32 noise of sums of a hundred products; a wrong scale shows at 1e-1.
local NOISE <const> = 1e-5
local E4 <const> = {"e4_attention.png"}
local function attention(model, causal)
  local out <const> = essay("e4_attention.lua", E4, model, 1, ".", 3)
  if not out then return nil end
  check.equal(out.causal, causal, model .. " is what it is")
  for _, what in ipairs {"query", "scores", "pattern", "z"} do
    check.yes(out[what] <= NOISE, ("%s: %s off by %g"):format(model, what,
                                                              out[what]))
  end
  check.yes(out.unscaled.low > 0.01, model .. ": without the scale it is off")
  check.yes(out.unscaled_bits.mean < out.bits.mean, "and surer")
  return out
end
attention(TINY, true)
for _, name in ipairs {"llama", "gpt2", "gpt2_hub"} do
  attention(srcdir .. "/tests/oracle/" .. name, true)
end
for _, name in ipairs {"bert", "bert_hub"} do
  attention(srcdir .. "/tests/oracle/" .. name, false)
end

---- E6, E7, E9, E16 on a model that knows nothing ----

local e6 <const> = essay("e6_lookup.lua", {"e6_lookup.png"}, TINY, 1, ".", 3)
if e6 then
  check.near(e6.mean_hit, e6.chance, 0.03, "look-up by chance")
  check.equal(e6.n_above_half, 0, "no head looks up")
  check.yes(e6[1].own.low < 0.5, "nothing is returned")
  within(e6.swapped, "the exchange")
end

local e7 <const> = essay("e7_heads.lua",
  {"e7_scores.png", "e7_damage.png", "e7_together.png"}, TINY, 1, ".", 2)
if e7 then
  check.equal(e7.named.induction, 0, "no induction head")
  check.near(e7.together[1].lists, 0, 1e-3, "none silenced, nothing lost")
  check.yes(e7.rho_lists.p > 0.001, "no score tells the damage")
  check.yes(e7.largest_lists > 0, "heads do something")
end

local e9 <const> = essay("e9_next_token.lua",
  {"e9_next.png", "e9_along.png", "e9_lens.png"}, TINY, 1, ".", 200)
if e9 then
  check.near(e9.sum, 1, 1e-4, "probabilities sum to 1")
  check.yes(e9.p > 0.001, "draws follow the distribution")
  check.equal(e9.cold, 1, "cold draws are greedy")
  check.near(e9.agree[#e9.agree], 1, 0, "the last layer agrees with itself")
  check.yes(e9.order.low < 1, "the order of words hardly matters")
end

local e16 <const> = essay("e16_memory.lua",
  {"e16_recall.png", "e16_knocked_out.png"}, TINY, 1, ".", 2)
if e16 then
  check.yes(e16.intact.low < e16.chance + 0.05, "nothing is remembered")
  within(e16.intact, "recall")
  check.yes(e16.load[32] and e16.distance[128], "loads and distances")
end

check.error(function()
  arg = {TINY, "x"}
  dofile(srcdir .. "/scripts/essay/e4_attention.lua")
end, "MODEL SEED FOLDER SAMPLES", "a seed that is no number")

---- SmolLM2: the claims ----

local REAL <const> = "smollm2"
if plain_lua then
  check.skip("the scripts on SmolLM2: qkv runs them, plain Lua need not")
elseif not pcall(qkv.open, REAL) then
  check.skip("SmolLM2 is not there: scripts/tools/fetch smollm2")
else
  attention(REAL, true)

  local look <const> = essay("e6_lookup.lua", {}, REAL, 1, ".", 8)
  check.equal(look[1].head, "L18H6", "the head that looks up")
  check.yes(look[1].hit.low > 0.85, "the right record")
  check.yes(look[1].unrepeated.high < 0.05, "only where there is one")
  check.near(look.chance, 0.027, 1e-3, "chance")
  check.yes(look[1].own.low > 0.9 and look[1].others.high < 0.6,
            "its value is returned")
  check.yes(look.swapped.high < -3, "values exchanged, answers exchanged")
  check.yes(math.abs(look.control.mean) < 2, "but not by other records")

  local split <const> = essay("e7_heads.lua", {}, REAL, 1, ".", 1)
  check.equal({split.best.layer, split.best.head}, {18, 6}, "induction")
  check.equal({split.previous.layer, split.previous.head}, {16, 0}, "previous")
  check.yes(split.named.first > 80 and split.named.induction < 10,
            "most have no name here, many look at the first token")
  check.yes(split.missed_previous.lists.p < 0.05, "previous-token heads missed")
  local four <const> = split.together[4]
  check.yes(four.lists > 3 and four.random_lists < four.lists / 3,
            "lists need the induction heads")
  check.yes(math.abs(four.texts) < 0.3, "texts do not")

  local next_token <const> = essay("e9_next_token.lua", {}, REAL, 1, ".", 50)
  check.equal(next_token.next, " Paris", "what comes next")
  check.yes(next_token.p > 0.001, "draws follow the distribution")
  check.yes(next_token.gap.high < 2, "about as sure as it should be")
  check.yes(next_token.order.low > 3, "order saves bits")
  check.yes(next_token.half > 20 and next_token.half < 30, "the lens, late")

  local memory <const> = essay("e16_memory.lua", {}, REAL, 1, ".", 2)
  check.yes(memory.intact.mean > 0.6, "recall")
  check.yes(memory.load[32].two.low > 0.5, "of 32 items")
  check.yes(memory.distance[384].mean > 0.5, "past 384 other tokens")
  check.yes(memory.load[16].none.mean < 0.15, "not without a cue")
  check.yes(memory.blind.high < 0.2, "not without sight of the item")
  check.yes(memory.blind_other.mean > 0.6, "another item's is not missed")
  check.yes(memory.no_induction.mean < memory.no_others.mean / 2,
            "induction heads do it")
end

check.done()

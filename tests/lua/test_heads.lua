-- test_heads.lua - qkv.heads: scores, their spread, options, pictures
--
-- The tiny oracles for numbers (tests/oracle/heads: TransformerLens and NumPy
-- on transformers' patterns), the tiny model that ships for laws and errors,
-- SmolLM2, where it was fetched, for heads that are known.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

-- Two float32 forwards of one model differ by less.
local NOISE <const> = 2e-5

---- against the references ----

for _, name in ipairs {"llama", "gpt2", "bert"} do
  local m <const> = qkv.open(srcdir .. "/tests/oracle/" .. name)
  local o <const> = qkv.load(srcdir .. "/tests/oracle/heads/" .. name .. ".npz")
  local texts = {}
  for i = 1, 3 do texts[i] = o["ids" .. i - 1]:table() end
  local function heads(options)
    options.texts, options.n, options.length = texts, 1, 5
    return qkv.heads(m, options)
  end
  local h <const> = heads {}
  for _, score in ipairs {"entropy", "distance", "previous", "first", "self"} do
    check.near(h[score], o[score]:mean(0), NOISE, name .. " " .. score)
    check.near(h.sd[score], o[score]:std(0), NOISE, name .. " sd of " .. score)
    check.equal(h.n[score], 3, name .. " n of " .. score)
  end
  local measures <const> = {query = "", entry = "_entry", mul = "_mul",
                            abs = "_abs"}
  for measure, suffix in pairs(measures) do
    local g <const> = heads {measure = measure}
    for _, score in ipairs {"duplicate", "following"} do
      local want <const> = o[score .. suffix]:slice{[0] = {from = 0, to = 2}}
      check.near(g[score], want:mean(0), NOISE, name .. " " .. score .. suffix)
      check.equal(g.n[score], 2, "the third text repeats nothing")
    end
    check.near(g.previous, o["previous" .. suffix]:mean(0), NOISE,
               name .. " previous" .. suffix)
    check.near(g.induction, h.induction, 0, "measure is about texts")
  end
end

---- laws, on the tiny model ----

local m <const> = qkv.open(srcdir .. "/data/tiny.gguf")
local c <const> = m.config
local h <const> = qkv.heads(m, {n = 3, length = 12, seed = 4})
check.equal(h.induction.axes, {"layer", "head"}, "axes")
check.equal(h.induction.shape, {c.n_layers, c.n_heads}, "shape")
check.equal(h.n.prefix_matching, 3, "n")
check.equal(h.bos, m.bos, "the model's own BOS in front")
check.near(h.following, h.induction, 0, "no texts: the random tokens are")
check.yes(h.entropy:min() >= 0 and h.entropy:max() <= math.log(25, 2),
          "no more bits than positions")
check.yes(h.prefix_matching:max() <= 0.5, "three keys share the attention")
check.yes((h.previous + h.self + h.first):max() <= 1.5, "shares of a whole")
local again <const> = qkv.heads(m, {n = 3, length = 12, seed = 4})
check.near(again.induction, h.induction, 0, "a seed, the same numbers")
check.yes(not qkv.heads(m, {n = 3, length = 12, seed = 5})
          .induction:near(h.induction, 1e-6), "another seed, others")
check.equal(qkv.heads(m, {n = 1, length = 4, bos = false}).bos, false, "no BOS")
check.equal(qkv.heads(m, {n = 1, length = 4, bos = 7}).bos, 7, "another")
check.equal(qkv.heads(m, {n = 1}).length, 50, "length")

-- By hand from one run: two texts, a head.
local texts <const> = {{5, 6, 7, 5, 6, 9}, {1, 2, 3, 4}}
local g <const> = qkv.heads(m, {texts = texts, n = 1, length = 4})
local p <const> = m:run(texts[1])("pattern", 2)[1]
local q <const> = m:run(texts[2])("pattern", 2)[1]
check.near(g.duplicate[2][1], (p[3][0] + p[4][1]) / 2, 1e-6, "duplicate")
check.near(g.following[2][1], (p[3][1] + p[4][2]) / 2, 1e-6, "following")
check.equal(g.n.duplicate, 1, "one text repeats a token")
local a = (p[1][0] + p[2][1] + p[3][2] + p[4][3] + p[5][4]) / 5
local b = (q[1][0] + q[2][1] + q[3][2]) / 3
check.near(g.previous[2][1], (a + b) / 2, 1e-6, "previous")
check.near(g.sd.previous[2][1], math.abs(a - b) / math.sqrt(2), 1e-6, "its sd")
local none <const> = qkv.heads(m, {texts = {{1, 2, 3}}, n = 1, length = 4})
check.yes(none.duplicate[0][0] ~= none.duplicate[0][0], "nothing repeats: nan")
check.equal(none.n.duplicate, 0, "of no text")

---- lists, pictures, words ----

local top <const> = h:top("previous", 3)
check.equal(#top, 3, "top")
check.near(top[1].value, h.previous:max(), 0, "the best first")
check.near(top[2].sd, h.sd.previous[top[2].layer][top[2].head], 0, "its spread")
check.yes(tostring(h):find "induction", "printed")
check.yes(tostring(h):find "12 random tokens twice, after .*, seed 4",
          "where from")
check.yes(tostring(g):find "on texts", "texts")
for _, name in ipairs {"induction", "entropy", "duplicate"} do
  local script <const> = h:plot(name):render "gp"
  check.yes(script:find("layer", 1, true), "a map of " .. name)
end
check.yes(none:plot "duplicate", "a map of nan")

---- bad input ----

for _, row in ipairs {
  {{n = 0}, "n = 0: 1 to"},
  {{length = 400}, "draw from"},
  {{texts = {qkv.randint({c.n_ctx + 1}, {high = 9})}}, "context is"},
  {{bos = "x y"}, "'bos': true, false or a token id"},
  {{bos = 100000}, "100000"},
  {{measure = "max"}, "query, entry, mul or abs"},
  {{text = "a"}, "did you mean 'texts'"},
  {{texts = {{5}}}, "has 1 tokens"},
  {{texts = ""}, "has 0 tokens"},
  {{texts = 3}, "number"},
} do
  check.error(function() qkv.heads(m, row[1]) end, row[2], row[2])
end
check.error(function() qkv.heads() end, "qkv.model expected", "no model")
check.error(function() h:top "inductoin" end, "is not one of induction", "top")
check.error(function() h:plot "n" end, "is not one of induction", "plot")
check.error(function() return h.inductoin end, "did you mean 'induction'",
            "a field misspelt")

---- SmolLM2: heads that are known ----

local ok <const>, real = pcall(qkv.open, "smollm2")
if ok then
  -- Means of ten draws; tokens drawn otherwise move them by 0.02 or less.
  local s <const> = qkv.heads(real)
  for _, row in ipairs {
    {"induction", 18, 6, 0.89}, {"induction", 17, 3, 0.77},
    {"induction", 17, 4, 0.73}, {"induction", 17, 5, 0.64},
    {"previous", 16, 0, 0.885}, {"previous", 11, 1, 0.855},
    {"prefix_matching", 18, 6, 0.46}} do
    check.near(s[row[1]][row[2]][row[3]], row[4], 0.025,
               ("%s of L%dH%d"):format(row[1], row[2], row[3]))
  end
  local best <const> = s:top("induction", 1)[1]
  check.equal({best.layer, best.head}, {18, 6}, "the best induction head")
else
  check.skip("SmolLM2 is not there: scripts/tools/fetch smollm2")
end

check.done()

-- test_fork.lua - a fork is the run that it says it is, computed in part
--
-- Oracle: the same recipe run from scratch. Every site of every family,
-- changed at one position, one layer, one head; read everywhere; forks of
-- forks, of batches, with other tokens.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

-- Sums of different lengths round differently; values are about 1.
local TOLERANCE <const> = 1e-4
local prompt <const> = {5, 6, 7, 5, 9, 11, 3}

local families <const> = {
  {name = "tiny", path = "/data/tiny.gguf"},
  {name = "llama", path = "/tests/oracle/llama"},
  {name = "gpt2", path = "/tests/oracle/gpt2"},
  {name = "bert", path = "/tests/oracle/bert"},
}
for _, name in ipairs{"mistral", "qwen2", "qwen3", "phi3", "gpt_neox", "phi",
                      "opt", "roberta", "distilbert"} do
  families[#families + 1] = {name = name, path = "/tests/oracle/" .. name}
end

-- The sites in their short names, each once.
local function sites_of(m)
  local seen, list = {}, {}
  for _, name in ipairs(m:sites "*") do
    local short = name:gsub("^blocks%.%d+%.", "")
    if not seen[short] then
      seen[short] = true
      list[#list + 1] = {name = short, block = name:find "^blocks" ~= nil}
    end
  end
  return list
end

-- All that can be read of both runs is alike.
local function same_runs(got, want, sites, what)
  for _, site in ipairs(sites) do
    local a, b = got[site.name], want[site.name]
    check.near(a:clamp(-1e30, 1e30), b:clamp(-1e30, 1e30), TOLERANCE,
               what .. ": " .. site.name)
  end
end

for _, family in ipairs(families) do
  local m <const> = qkv.open(srcdir .. family.path)
  local r <const> = m:run(prompt)
  local sites <const> = sites_of(m)
  for _, site in ipairs(sites) do
    local edit = {site = site.name, op = "scale", value = 0.5}
    local shape = r[site.name].axes
    for _, axis in ipairs(shape) do
      if axis == "pos" then edit.pos = 4 end
      if axis == "query" then edit.query = 4 end
      if axis == "head" or axis == "kv_head" then edit.head = 1 end
    end
    if site.block then edit.layer = 1 end
    local what = family.name .. ", " .. site.name
    local fork = r:fork{edits = {edit}}
    local naive = m:run(prompt, {edits = {edit}})
    check.near(fork("resid_post", -1), naive("resid_post", -1), TOLERANCE,
               what .. " edited: the last stream")
    if naive.logits then
      check.near(fork.logits, naive.logits, TOLERANCE,
                 what .. " edited: logits")
    end
  end
  -- everything that can be read of one fork
  local edits <const> = {
    {site = "z", layer = 1, head = 0, pos = 3, op = "zero"},
    {site = "resid_pre", layer = 1, pos = -2, op = "add", value = 0.5}}
  same_runs(r:fork{edits = edits}, m:run(prompt, {edits = edits}), sites,
            family.name .. ", a fork")
  -- a fork of a fork, deeper and less deep than the first
  for _, layer in ipairs{0, 1} do
    local more = {site = "mlp_out", layer = layer, pos = 2, op = "scale",
                  value = 2}
    same_runs(r:fork{edits = edits}:fork{edits = {more}},
              m:run(prompt, {edits = {edits[1], edits[2], more}}), sites,
              ("%s, a fork of a fork at layer %d"):format(family.name, layer))
  end
  -- other tokens
  same_runs(r:fork{from = 4, tokens = {8, 2, 1, 4}},
            m:run{5, 6, 7, 5, 8, 2, 1, 4}, sites,
            family.name .. ", other tokens")
  same_runs(r:fork{tokens = {8}}, m:run{5, 6, 7, 5, 9, 11, 3, 8}, sites,
            family.name .. ", one more token")
  same_runs(r:fork{from = -3, tokens = {}}, m:run{5, 6, 7, 5}, sites,
            family.name .. ", fewer tokens")
  same_runs(r:fork{}, r, sites, family.name .. ", nothing changed")
  -- many as one batch, which enter at different layers
  local list, alone <const> = {}, {}
  for layer = 0, m.config.n_layers - 1 do
    for pos = 0, 6, 2 do
      local edit = {site = "attn_out", layer = m.config.n_layers - 1 - layer,
                    pos = pos, op = "scale", value = 0.5}
      list[#list + 1] = {edits = {edit}}
      alone[#list] = m:run(prompt, {edits = {edit}})
    end
  end
  list[#list + 1] = {from = 2, tokens = {1}}
  alone[#list] = m:run{5, 6, 1}
  local forks <const> = r:forks(list)
  check.equal(#forks, #list, "as many forks")
  for i = 1, #list do
    same_runs(forks:seq(i - 1), alone[i], sites,
              ("%s, fork %d of many"):format(family.name, i - 1))
  end
end

---- batches, hooks, edits of the parent ----

local m <const> = qkv.open(srcdir .. "/data/tiny.gguf")
local two <const> = {{5, 6, 7, 5}, {9, 3, 2}}
local given <const> = {
  {site = "q", layer = 0, seq = 1, op = "scale", value = 3},
  {site = "resid_post", layer = 0, pos = -1, op = "add", value = 0.25}}
local batch <const> = m:run(two, {edits = given})
local edit <const> = {site = "v", layer = 1, head = 0, op = "zero"}
local both <const> = batch:fork{edits = {edit}}
local want <const> = m:run(two, {edits = {given[1], given[2], edit}})
check.equal(#both, 2, "a fork of a batch is a batch")
for i = 0, 1 do
  check.near(both:seq(i).logits, want:seq(i).logits, TOLERANCE,
             "a fork of a batch, sequence " .. i)
end
check.near(batch:seq(1):fork{edits = {edit}}.logits, want:seq(1).logits,
           TOLERANCE, "a fork of one sequence of a batch")
local longer <const> = batch:seq(0):fork{tokens = {4}}
check.near(longer("resid_post", 0):slice{pos = {from = 0, to = 4}},
           batch:seq(0)("resid_post", 0), TOLERANCE,
           "what a parent edited at its end stays where it was")

local function half(t) t:mul_(0.5) end
check.near(m:run{1, 2, 3}:fork{hooks = {{site = "z", layer = 1, fn = half}}}
           :logit(5), m:run({1, 2, 3}, {edits = {{site = "z", layer = 1,
           op = "scale", value = 0.5}}}):logit(5), TOLERANCE,
           "a hook in a fork")
check.near(m:run{1, 2, 3}:fork{tokens = {4, 5}, names = "pattern"}
           :surprisal():slice{pos = {from = 1, to = 5}},
           m:run{1, 2, 3, 4, 5}:surprisal():slice{pos = {from = 1, to = 5}},
           TOLERANCE, "surprisal of a fork")

-- after generating, the last token was only written down
local _, _, made = m:generate({1, 2, 3}, {n = 4})
check.near(made:fork{tokens = {7}}.logits,
           m:run(qkv.cat({made.tokens, qkv.tensor({7}, {dtype = "i32"})}, 0))
           .logits, TOLERANCE, "a fork of what was generated")

---- what is refused ----

local r <const> = m:run(prompt)
local hooked <const> = m:run(prompt, {hooks = {{site = "z", fn = half}}})
for _, row in ipairs{
  {"hooks of the parent", function() hooked:fork{} end, "hooks cannot be"},
  {"from without tokens", function() r:fork{from = 2} end, "needs tokens"},
  {"from beyond the end", function() r:fork{from = 9, tokens = {1}} end,
   "from position 9"},
  {"from before the start", function() r:fork{from = -9, tokens = {1}} end,
   "7 positions"},
  {"no tokens left", function() r:fork{from = 0, tokens = {}} end, "empty"},
  {"an id out of range", function() r:fork{tokens = {1 << 20}} end,
   "ids run 0"},
  {"unknown option", function() r:fork{edit = {}} end, "did you mean 'edits'"},
  {"no forks", function() r:forks{} end, "is empty"},
  {"a fork that is no table", function() r:forks{1} end, "table"},
  {"seq of one", function() r:fork{edits = {{site = "z", seq = 1,
   op = "zero"}}} end, "seq 1 of 1"},
  {"unknown site", function() r:fork{edits = {{site = "zz", op = "zero"}}} end,
   "zz"},
} do
  check.error(row[2], row[3], row[1])
end

check.done()

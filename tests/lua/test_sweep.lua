-- test_sweep.lua - a sweep is what as many runs with one edit each would say
--
-- Oracle: each cell run from scratch. A table of family x site x axes; the
-- metrics by their definitions; batches; SmolLM2, where it was fetched.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

-- Sums of different lengths round differently; metrics are of size 1 to 10.
local TOLERANCE <const> = 1e-4
local clean_ids <const> = {5, 6, 7, 5, 9, 11}
local corrupt_ids <const> = {5, 6, 3, 5, 2, 11}
local metric <const> = qkv.logit_diff(4, 8)

-- The metric of `ids` run with the donor's (or no) values at one cell.
local function naive(m, ids, donor, site, cell, block)
  local edit = {site = site, layer = cell.layer, pos = cell.pos,
                query = cell.query, head = cell.head, op = "zero"}
  if cell.neuron then
    local size = m:run(ids)(site, 0).shape
    local first = cell.neuron * block
    edit.neuron = {from = first, to = math.min(first + block, size[#size])}
  end
  if donor then edit.op, edit.value = "set", donor end
  return m:run(ids, {edits = {edit}}):measure(metric)
end

local function cells_of(t, axes)
  local list, shape = {}, t.shape
  for i = 0, math.tointeger(t:size(0)) - 1 do
    for j = 0, (shape[2] or 1) - 1 do
      list[#list + 1] = {[axes[1]] = i, [axes[2] or "none"] = j}
    end
  end
  return list
end

local sites <const> = {
  {"resid_pre", "pos"}, {"resid_mid", "pos"}, {"resid_post", "pos"},
  {"attn_out", "pos"}, {"mlp_out", "pos"}, {"z", "head"}, {"z", "pos"},
  {"q", "head"}, {"k", "head"}, {"v", "head"}, {"pattern", "head"},
  {"pattern", "query"}, {"mlp.post", "neuron"}, {"mlp.post", "pos"},
}

-- Blocks that add attention and MLP at once have no stream between them.
local function sites_of(m)
  local parallel <const> = not pcall(m.sites, m, "resid_mid")
  local list = {}
  for _, row in ipairs(sites) do
    if not (parallel and row[1] == "resid_mid") then list[#list + 1] = row end
  end
  check.equal(#sites - #list, parallel and 1 or 0, "sites of every family")
  return list
end

local families <const> = {"/data/tiny.gguf"}
for _, name in ipairs{"llama", "gpt2", "bert", "mistral", "qwen2", "qwen3",
                      "phi3", "gpt_neox", "phi", "opt", "roberta",
                      "distilbert"} do
  families[#families + 1] = "/tests/oracle/" .. name
end

for _, family in ipairs(families) do
  local m <const> = qkv.open(srcdir .. family)
  local clean <const>, corrupt <const> = m:run(clean_ids), m:run(corrupt_ids)
  for _, row in ipairs(sites_of(m)) do
    local site, axis = row[1], row[2]
    local axes <const> = {"layer", axis}
    local what = family .. ", " .. site .. " by " .. axis
    local block <const> = 50
    local s = qkv.patch{clean = clean, corrupt = corrupt, site = site,
                        axes = axes, metric = metric, block = block}
    local zero = qkv.ablate{run = clean, site = site, axes = axes,
                            metric = metric, block = block}
    for _, cell in ipairs(cells_of(s.value, axes)) do
      check.near(s.value:at(cell), naive(m, corrupt_ids, clean, site, cell,
                 block), TOLERANCE, what .. ", patched")
      check.near(zero.value:at(cell), naive(m, clean_ids, nil, site, cell,
                 block), TOLERANCE, what .. ", zeroed")
    end
    check.equal(s.done, 1, what .. ": all of it")
  end
end

---- axes, directions, blocks, what is reported ----

local m <const> = qkv.open(srcdir .. "/data/tiny.gguf")
local c <const> = m.config
local clean <const>, corrupt <const> = m:run(clean_ids), m:run(corrupt_ids)
local s <const> = qkv.patch{clean = clean, corrupt = corrupt, site = "resid_pre",
                            axes = {"pos", "layer"}, metric = metric}
check.near(s.clean, clean:logit(4) - clean:logit(8), 1e-5, "clean")
check.near(s.corrupt, corrupt:logit(4) - corrupt:logit(8), 1e-5, "corrupt")
check.equal(s.value.axes, {"pos", "layer"}, "axes as they were given")
check.near(s.value:at{pos = 0}, qkv.full(c.n_layers, s.corrupt), 1e-5,
           "where both are alike nothing changes")
check.near(s.normalized, (s.value - s.corrupt) / (s.clean - s.corrupt), 1e-5,
           "normalized")
local top <const> = s:top(2)
check.near(math.abs(top[1].change), s.change:abs():max(), 1e-6, "top")
check.near(s.value:at{pos = top[1].pos, layer = top[1].layer}, top[1].value, 0,
           "top's place")
check.yes(tostring(s):find "patching of resid_pre over pos 6 x layer",
          "printed")
local noise <const> = qkv.patch{clean = clean, corrupt = corrupt,
  site = "resid_post", axes = {"layer"}, metric = metric, direction = "noise"}
check.near(noise.value, qkv.full(c.n_layers, noise.corrupt), TOLERANCE,
           "the whole stream of the other run is the other run")
local whole <const> = qkv.patch{clean = clean, corrupt = corrupt,
  site = "resid_pre", axes = {"layer"}, metric = metric}
check.near(whole.normalized, qkv.ones(c.n_layers), TOLERANCE,
           "denoised at every position")
local three <const> = qkv.ablate{run = clean, site = "z",
  axes = {"layer", "head", "pos"}, metric = metric}
check.equal(three.value.shape, {c.n_layers, c.n_heads, 6}, "three axes")
check.near(three.value:at{layer = 1, head = 1, pos = 4}, naive(m, clean_ids,
           nil, "z", {layer = 1, head = 1, pos = 4}), TOLERANCE, "and a cell")
check.near(qkv.patch{clean = clean, corrupt = clean, site = "z",
           axes = {"layer", "head"}, metric = metric}.change:abs():max(), 0, 0,
           "a run patched with itself")

---- ablation with other values ----

local z1 <const> = clean("z", 1)
local mean <const> = qkv.ablate{run = clean, site = "z", axes = {"layer",
  "head"}, metric = metric, with = {mean = clean}}
check.near(mean.change:abs():max(), 0, TOLERANCE,
           "the mean over one run is the run")
local two <const> = m:run{{5, 6, 7, 5, 9, 11}, {5, 6, 3, 5, 2, 11}}
local average <const> = (two:seq(0)("z", 1) + two:seq(1)("z", 1)) / 2
local by_mean <const> = qkv.ablate{run = two, site = "z", axes = {"layer",
  "head"}, metric = metric, with = {mean = two}}
for i, ids in ipairs{clean_ids, corrupt_ids} do
  check.near(by_mean.each:at{seq = i - 1, layer = 1, head = 0},
    m:run(ids, {edits = {{site = "z", layer = 1, head = 0,
      value = average:at{head = 0}}}}):measure(metric), TOLERANCE,
    "the mean of two, sequence " .. i - 1)
end
check.near(by_mean.value, by_mean.each:mean "seq", 1e-6, "mean over sequences")
check.near(by_mean.sd, by_mean.each:std "seq", 1e-6, "spread over sequences")
local short <const> = m:run{{1, 2}, {3, 4, 5}}
local flat <const> = qkv.cat({short:seq(0)("z", 1), short:seq(1)("z", 1)},
                             "pos"):mean "pos"
check.near(qkv.ablate{run = clean, site = "z", axes = {"layer", "head"},
  metric = metric, with = {mean = short}}.value:at{layer = 1, head = 0},
  m:run(clean_ids, {edits = {{site = "z", layer = 1, head = 0,
    value = flat:at{head = 0}}}}):measure(metric), TOLERANCE,
  "a mean over positions, when lengths differ")
local random <const> = qkv.ablate{run = clean, site = "z", axes = {"layer"},
  metric = metric, with = {resample = corrupt, seed = 1}}
check.near(random.value, qkv.patch{clean = corrupt, corrupt = clean,
  site = "z", axes = {"layer"}, metric = metric}.value, TOLERANCE,
  "resampled from one other run")
check.near(qkv.ablate{run = clean, site = "z", axes = {"layer"},
  metric = metric, with = clean "z"}.change:abs():max(), 0, TOLERANCE,
  "a tensor")
check.near(z1, clean("z", 1), 0, "the run is as it was")

---- metrics ----

local function one(what) return corrupt:measure(what) end
check.near(one(qkv.logprob(4)), corrupt:logprob(4), 1e-5, "logprob")
check.near(one(qkv.prob(4)), corrupt:prob(4), 1e-6, "prob")
check.near(one(qkv.logprob(4, {pos = 2})), corrupt:logprob(4, 2), 1e-5,
           "logprob in the middle")
check.near(one(qkv.logit_diff(4)), corrupt:logit(4), 1e-5, "a logit alone")
local bits <const> = corrupt:surprisal():slice{pos = {from = 1, to = 6}}
check.near(one(qkv.loss()), bits:mean() * math.log(2), 1e-5, "loss")
local p <const> = clean.logits[5]:softmax(0)
local kl <const> = (p * (clean.logits[5]:log_softmax(0)
                    - corrupt.logits[5]:log_softmax(0))):sum()
check.near(one(qkv.kl(clean)), kl, 1e-4, "kl")
check.near(one(function(r) return r:logit(4) - r:logit(8) end), one(metric),
           1e-5, "a function")
check.equal(two:measure(qkv.logit_diff({4, 8}, {8, 4}))[2],
            -two:seq(1):measure(metric), "tokens for each sequence")
for name, what in pairs{prob = qkv.prob(4), loss = qkv.loss(),
                        kl = qkv.kl(clean),
                        fn = function(r) return r:prob(4) end} do
  local sweep = qkv.ablate{run = clean, site = "mlp_out", axes = {"layer"},
                           metric = what}
  check.near(sweep.value[1], m:run(clean_ids, {edits = {{site = "mlp_out",
             layer = 1, op = "zero"}}}):measure(what), TOLERANCE,
             "a sweep measured by " .. name)
end
local edited <const> = m:run(clean_ids, {edits = {{site = "ln_final.normalized",
                             neuron = 3, op = "scale", value = 5}}})
check.near(qkv.ablate{run = edited, site = "mlp_out", axes = {"layer"},
  metric = metric}.value[1], m:run(clean_ids, {edits = {
    {site = "ln_final.normalized", neuron = 3, op = "scale", value = 5},
    {site = "mlp_out", layer = 1, op = "zero"}}}):measure(metric), TOLERANCE,
  "an edit between the stream and the logits")

---- what is refused ----

local function patch(change)
  local options = {clean = clean, corrupt = corrupt, site = "resid_pre",
                   axes = {"layer", "pos"}, metric = metric}
  for name, value in pairs(change) do options[name] = value end
  return function() qkv.patch(options) end
end
for _, row in ipairs{
  {"lengths", patch{corrupt = m:run{1, 2}}, "6 tokens, corrupt 2"},
  {"both tokenizations", patch{corrupt = m:run{1, 2}}, "corrupt: "},
  {"a site misspelt", patch{site = "resid_pro"}, "did you mean"},
  {"no such axis", patch{axes = {"voxel"}}, "axis 'voxel'"},
  {"an axis the site has not", patch{axes = {"head"}}, "no axis 'head'"},
  {"an axis twice", patch{axes = {"pos", "pos"}}, "twice"},
  {"no axes", patch{axes = {}}, "1 to 4"},
  {"not of a block", patch{site = "hook_embed"}, "not a site of the blocks"},
  {"no number", patch{metric = function() return "x" end}, "gave a string"},
  {"NaN", patch{metric = function() return 0 / 0 end}, "NaN"},
  {"an error in a metric", patch{metric = function() error "mine" end},
   "mine"},
  {"no metric", patch{metric = 3}, "a metric was expected"},
  {"unknown option", patch{metrik = metric}, "did you mean 'metric'"},
  {"direction", patch{direction = "back"}, "denoise"},
  {"a missing option", function() qkv.patch{clean = clean} end,
   "'corrupt' is missing"},
  {"no run", patch{clean = "text"}, "a run was expected"},
  {"a token out of range", patch{metric = qkv.prob(1 << 20)}, "ids run 0"},
  {"a word of two tokens", patch{metric = qkv.prob "Constantinople"},
   "one was expected"},
  {"too few tokens", function() two:measure(qkv.prob{1, 2, 3}) end,
   "3 tokens, one for each of 2"},
  {"a token that is a run", function() qkv.prob(clean) end, "token's text"},
  {"lengths and positions", function() qkv.ablate{run = m:run{{1}, {2, 3}},
   site = "z", axes = {"pos"}, metric = metric} end, "sequences of one length"},
  {"with", function() qkv.ablate{run = clean, site = "z", axes = {"layer"},
   metric = metric, with = "noise"} end, "with = "},
  {"block", function() qkv.ablate{run = clean, site = "mlp.post",
   axes = {"neuron"}, metric = metric, block = 0} end, "blocks of 0"},
  {"hooks", function() qkv.ablate{run = m:run(clean_ids, {hooks = {{site = "z",
   fn = function() end}}}), site = "z", axes = {"layer"}, metric = metric} end,
   "hooks cannot be forked"},
  {"a plot of three axes", function() three:plot() end, "3 axes"},
} do
  check.error(row[2], row[3], row[1])
end

---- SmolLM2 ----

local ok, big = pcall(qkv.open, "smollm2")
if ok then
  local words = "Then, when Mary and John went to the store, %s gave a drink to"
  local a = big:run(words:format "John", {special = false})
  local b = big:run(words:format "Mary", {special = false})
  local diff = qkv.logit_diff(" Mary", " John")
  for _, row in ipairs{
    {"resid_pre", "pos", {0, 11}, {15, 11}, {20, 15}, {29, 13}},
    {"resid_mid", "pos", {3, 12}, {28, 15}}, {"resid_post", "pos", {22, 15}},
    {"attn_out", "pos", {23, 15}}, {"mlp_out", "pos", {2, 11}},
    {"z", "head", {23, 3}, {20, 0}, {29, 1}}, {"q", "head", {23, 3}},
    {"k", "head", {17, 1}}, {"v", "head", {23, 1}},
    {"pattern", "head", {23, 3}}, {"mlp.post", "pos", {5, 11}}} do
    local site, axis = row[1], row[2]
    local grid = qkv.patch{clean = a, corrupt = b, site = site,
                           axes = {"layer", axis}, metric = diff}
    for i = 3, #row do
      local cell = {layer = row[i][1], [axis] = row[i][2]}
      local one = big:run(b.tokens, {edits = {{site = site, layer = cell.layer,
        pos = cell.pos, head = cell.head, value = a}}})
      check.near(grid.value:at(cell), one:measure(diff), TOLERANCE,
                 ("SmolLM2, %s, layer %d, %s %d"):format(site, cell.layer, axis,
                                                         row[i][2]))
    end
  end
  -- the study of scripts/examples: few prompts, its claims
  local folder, say = os.tmpname(), print
  os.remove(folder)
  os.execute("mkdir " .. folder)
  arg = {[0] = "ioi.lua", "smollm2", "1", "4", folder}
  print = function() end
  local went, study = pcall(dofile, srcdir .. "/scripts/examples/ioi.lua")
  print = say
  check.yes(went or tostring(study):find "gnuplot", tostring(study))
  if went then
    check.equal(study.n, 4, "as many prompts")
    check.yes(study.difference > 1, "the indirect object is likelier")
    check.equal({study.heads[1].layer, study.heads[1].head}, {23, 3},
                "the head that moves most")
    check.yes(study.ablated < 0.5 * study.difference, "without its heads")
    check.yes(study.control > 0.7 * study.difference, "without others")
  end
  os.execute("rm -r " .. folder)
else
  check.skip "SmolLM2 is not here; scripts/tools/fetch smollm2 gets it"
end

check.done()

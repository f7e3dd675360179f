--[[ ioi.lua - which heads find the indirect object?

    qkv ioi.lua [MODEL] [SEED] [PROMPTS] [FOLDER]

Question: "Then, when Mary and John went to the store, John gave a drink to"
is followed by " Mary". Which attention heads bring the name that is not
repeated? Wang et al. 2022, arXiv:2211.00593, asked it of GPT-2 small.

Data: prompts are generated from templates and first names that are one token
with the space before them; "Then, " stands in front so that the first name
has its space too. Corrupt prompts repeat the other name, which turns the
answer round. Heads are found by patching each head's z of the clean prompts
into the corrupt ones, and checked by mean-ablation: heads are replaced by
their mean over prompts with three unrelated names (the paper's p_ABC),
position by position; as many random heads are the control.

Expected on SmolLM2-135M-Instruct: the name is right in about nine prompts of
ten; a handful of heads in layers 16 to 29 (the first is L23H3) move most of
the logit difference; ablating them takes most of it away, ablating as many
random heads little. About a minute on two cores; 25 prompts: a quarter of it.

Prints what it finds, saves ioi-heads.png and ioi-positions.png in FOLDER (the
current one), and returns its numbers.
]]
local qkv = require "qkv"

local path <const> = arg and arg[1] or "smollm2"
local seed <const> = math.tointeger(arg and arg[2] or 1) or 1
local n_prompts <const> = math.tointeger(arg and arg[3] or 100) or 100
local folder <const> = arg and arg[4] or "."
local KEEP <const> = 10                 -- heads that count as found

local m = qkv.open(path)

---- prompts ----

local NAMES <const> = {"Mary", "John", "Tom", "James", "Sarah", "David",
  "Michael", "Anna", "Paul", "Mark", "Laura", "Peter", "Jane", "Kate", "Lisa",
  "Robert", "Alice", "George", "Emma", "Jack", "Lucy", "Daniel", "Susan",
  "Henry", "Helen", "Simon", "Julia", "Adam", "Maria", "Sam"}
local PLACES <const> = {"store", "park", "school", "station", "office",
  "garden", "house", "hospital"}
local THINGS <const> = {"drink", "book", "ring", "letter", "computer", "ball",
  "key", "gift"}
local TEMPLATES <const> = {        -- A: the answer; B: who is named again
  "Then, when %A and %B went to the %P, %S gave a %T to",
  "Then, when %B and %A went to the %P, %S gave a %T to",
  "Then, after %A and %B had been to the %P, %S gave a %T to",
  "Then, after %B and %A had been to the %P, %S gave a %T to",
}

-- Words that are one token with the space before them.
local function single(words)
  local list = {}
  for _, word in ipairs(words) do
    if pcall(m.token, m, " " .. word) then list[#list + 1] = word end
  end
  assert(#list >= 3, "this tokenizer cuts these words up")
  return list
end

local names <const>, places <const>, things <const> =
  single(NAMES), single(PLACES), single(THINGS)

math.randomseed(seed)
local function pick(list) return list[math.random(#list)] end

local function three_names()
  local a, b, c = pick(names), nil, nil
  repeat b = pick(names) until b ~= a
  repeat c = pick(names) until c ~= a and c ~= b
  return a, b, c
end

local function fill(template, words)
  return (template:gsub("%%(%u)", words))
end

-- Each template's prompts are of one length; sets of one length are swept.
local function new_set(template, n)
  local set = {clean = {}, corrupt = {}, unrelated = {}, io = {}, s = {}}
  for i = 1, n do
    local a, b, c = three_names()
    local words = {A = a, B = b, S = b, P = pick(places), T = pick(things)}
    set.clean[i] = fill(template, words)
    words.S = a
    set.corrupt[i] = fill(template, words)
    words.S = c
    set.unrelated[i] = fill(template, words)
    set.io[i], set.s[i] = " " .. a, " " .. b
  end
  return set
end

local sets = {}
for i, template in ipairs(TEMPLATES) do
  local n = (n_prompts + #TEMPLATES - i) // #TEMPLATES
  if n > 0 then sets[#sets + 1] = new_set(template, n) end
end

-- The metric of each sequence of a run.
local function measured(r, metric)
  local list = r:measure(metric)
  return type(list) == "table" and list or {list}
end

---- how well does the model do it? ----

local plain <const> = {special = false}
local results = {right = 0, n = 0}
local differences, probability = {}, 0
for _, set in ipairs(sets) do
  set.r, set.r_corrupt = m:run(set.clean, plain), m:run(set.corrupt, plain)
  set.r_unrelated = m:run(set.unrelated, plain)
  set.metric = qkv.logit_diff(set.io, set.s)
  for i, d in ipairs(measured(set.r, set.metric)) do
    differences[#differences + 1] = d
    if d > 0 then results.right = results.right + 1 end
    local one = #set.clean > 1 and set.r:seq(i - 1) or set.r
    probability = probability + one:prob(set.io[i])
  end
end
results.n = #differences
local all <const> = qkv.tensor(differences)
results.difference, results.sd = all:mean(), all:std()
results.probability = probability / results.n
print(("%d prompts: logit difference %.2f (sd %.2f), right in %.0f %%, "
  .. "p(answer) %.2f"):format(results.n, results.difference, results.sd,
  100 * results.right / results.n, results.probability))

---- heads, by patching ----

-- Mean of a sweep over all sets, weighted by their prompts.
local function over_sets(sweep)
  local sum, squares, n = nil, nil, 0
  for _, set in ipairs(sets) do
    local change = sweep(set)                           -- [seq, ...]
    local total, square = change:sum "seq", (change * change):sum "seq"
    sum = sum and sum + total or total
    squares = squares and squares + square or square
    n = n + #set.clean
  end
  local mean = sum / n
  return mean, (squares / n - mean * mean):clamp(0, math.huge):sqrt()
end

local share, spread = over_sets(function(set)
  local s = qkv.patch{clean = set.r, corrupt = set.r_corrupt, site = "z",
                      axes = {"layer", "head"}, metric = set.metric}
  return (s.each - s.corrupt) / (s.clean - s.corrupt)
end)
local found = share:abs():ranked(KEEP)
print "heads, by what patching them restores (1: all of it)"
for i, head in ipairs(found) do
  head.share, head.sd = share:at{layer = head.layer, head = head.head},
                        spread:at{layer = head.layer, head = head.head}
  if i <= 6 then
    print(("  L%dH%d  %+.2f (sd %.2f)"):format(head.layer, head.head,
                                               head.share, head.sd))
  end
end
results.heads = found

---- checked by mean-ablation ----

-- Edits that put the mean over unrelated names in the place of some heads.
local function edits_of(set, heads)
  local by_layer, edits = {}, {}
  for _, head in ipairs(heads) do
    by_layer[head.layer] = by_layer[head.layer] or {}
    table.insert(by_layer[head.layer], head.head)
  end
  for layer, list in pairs(by_layer) do
    local sum
    for i = 0, #set.clean - 1 do
      local one = #set.clean > 1 and set.r_unrelated:seq(i) or set.r_unrelated
      local z = one("z", layer)
      sum = sum and sum + z or z:clone()
    end
    edits[#edits + 1] = {site = "z", layer = layer, head = list,
                         value = (sum / #set.clean):take{head = list}}
  end
  return edits
end

local function difference_without(heads)
  local sum = 0
  for _, set in ipairs(sets) do
    local r = set.r:fork{edits = edits_of(set, heads)}
    for _, d in ipairs(measured(r, set.metric)) do sum = sum + d end
  end
  return sum / results.n
end

local function random_heads(n)
  local list, taken = {}, {}
  for _, head in ipairs(found) do
    taken[head.layer * m.config.n_heads + head.head] = true
  end
  while #list < n do
    local at = math.random(0, m.config.n_layers * m.config.n_heads - 1)
    if not taken[at] then
      taken[at] = true
      list[#list + 1] = {layer = at // m.config.n_heads,
                         head = at % m.config.n_heads}
    end
  end
  return list
end

results.ablated = difference_without(found)
local control = {}
for i = 1, 5 do control[i] = difference_without(random_heads(KEEP)) end
control = qkv.tensor(control)
results.control, results.control_sd = control:mean(), control:std()
print(("without these %d heads (mean over three unrelated names instead): "
  .. "%.2f of %.2f"):format(KEEP, results.ablated, results.difference))
print(("without %d random heads, 5 draws: %.2f (sd %.2f)"):format(KEEP,
  results.control, results.control_sd))

---- where, by position ----

local first <const> = sets[1]
local grid <const> = qkv.patch{clean = first.r, corrupt = first.r_corrupt,
  site = "resid_pre", axes = {"layer", "pos"}, metric = first.metric}
results.positions = grid.normalized
local one <const> = #first.clean > 1 and first.r:seq(0) or first.r

qkv.plot.heatmap(share, {scale = "diverging", xlabel = "head",
  ylabel = "layer", title = ("Indirect object: share of the logit difference "
  .. "that each head restores, n = %d"):format(results.n)}):save(
    folder .. "/ioi-heads.png")
qkv.plot.heatmap(grid.normalized, {scale = "diverging", xlabel = "position",
  ylabel = "layer", cols = one.pieces, title = ("The stream patched at one "
  .. "position, n = %d"):format(#first.clean)}):save(
    folder .. "/ioi-positions.png")
print(("pictures: %s/ioi-heads.png, ioi-positions.png"):format(folder))

return results

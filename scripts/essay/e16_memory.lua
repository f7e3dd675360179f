--[[ e16_memory.lua - self-attention as a working memory indexed by context

    qkv scripts/essay/e16_memory.lua [MODEL] [SEED] [FOLDER] [SAMPLES]

Question: does a model recall what it was shown a moment ago, by its context
rather than by its place, and is it attention that does it? SAMPLES (4) lists of
n items, each of three random tokens, are shown once; then the items come again
in another order, and the third token of each is asked for after its first two
(after one; after none, which is a control). Recall: the right token has the
highest logit among the 3 n that were shown. Chance: 1 / 3 n.
  load      n = 2 to 32
  distance  8 items, and 0 to 384 other random tokens before the test
  attention 16 items; the test's positions may not look at their own item
            (scores = -inf in all layers). Control: at another item instead.
  heads     the 8 heads with the highest induction scores silenced. Control: 8
            others at random.
Model: SmolLM2-135M-Instruct, or any decoder. What should come out: recall far
above chance, hardly falling with load and distance; near nothing without
sight of the item or without induction heads. Some 20 s. Intervals are
Wilson's 95 %, over probes as if they were independent. Source: the likeness is
the essay's; induction: Olsson et al. 2022; attention knock-out: Geva et al.
2023.
Where it does not hold: unlike human memory, it holds some dozens of items, and
loses nothing by time as such; nothing chooses what to keep or lets it go; a
single showing of a pair is not enough for this model, two tokens of cue are.
]]
local qkv <const> = require "qkv"
local essay <const> = dofile(
  (debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "essay.lua")
local say <const>, heading <const> = essay.say, essay.heading

local job <const> = essay.begin(arg, 4)
local m <const>, c <const> = job.m, job.m.config
local out <const> = {}
local bos <const> = essay.bos(m)
local SIZE <const> = 3          -- tokens of an item

---- lists to remember ----

-- {ids =, list =, order =, test =}: n items, `filler` other tokens, the items
-- again in another order, from position `test` on.
local function task(n, filler, sample)
  local seed <const> = job.seed * 10000 + sample
  local ids <const> = essay.random_tokens(m, SIZE * n + filler, seed)
  local list <const> = {table.unpack(ids, 1, SIZE * n)}
  local order <const>, again = essay.shuffled(n, seed + 5000), {}
  for _, item in ipairs(order) do
    table.move(list, SIZE * item + 1, SIZE * item + SIZE, #again + 1, again)
  end
  return {ids = essay.join(bos, ids, again), list = list, order = order,
          test = #bos + #ids}
end
local function fits(n, filler)
  return #bos + 2 * SIZE * n + filler <= c.n_ctx
         and SIZE * n + filler <= c.d_vocab * 24 // 25
end
local function tasks_of(n, filler)
  local list = {}
  for i = 1, job.samples do list[i] = task(n, filler, i) end
  return list
end

-- Positions of an item when it was shown, and of its test.
local function shown_at(item) return #bos + SIZE * item end
local function positions(first)
  return {from = first, to = first + SIZE}
end

---- recall ----

-- {[cue] = hits}, probes: the right token of those shown after `cue` tokens of
-- its item, for all tasks.
local function recall(tasks, edits)
  local inputs = {}
  for i, t in ipairs(tasks) do inputs[i] = t.ids end
  local r <const> = m:run(inputs, {names = "ln_final.normalized",
                                   edits = edits, logits = false})
  local hits, probes = {[0] = 0, 0, 0}, 0
  for i, t in ipairs(tasks) do
    local one <const> = #r > 1 and r:seq(i - 1) or r
    local best <const> = one "ln_final.normalized"
      :matmul(m.unembed:take{vocab = t.list}):argmax "vocab"
    for place, item in ipairs(t.order) do
      for cue = 0, SIZE - 1 do
        local q <const> = t.test + SIZE * (place - 1) + cue - 1
        if best[q] == SIZE * item + cue then hits[cue] = hits[cue] + 1 end
      end
      probes = probes + 1
    end
  end
  local shares = {}
  for cue, n in pairs(hits) do shares[cue] = essay.share(n, probes) end
  return shares
end

-- Edits under which the test of each item may not look at item `which(i, n)`.
local function blind(tasks, which)
  local edits = {}
  for i, t in ipairs(tasks) do
    for place, item in ipairs(t.order) do
      edits[#edits + 1] = {site = "attn_scores", seq = i - 1,
        query = positions(t.test + SIZE * (place - 1)),
        key = positions(shown_at(which(item, #t.order))), value = -math.huge}
    end
  end
  return edits
end

---- load ----

heading "load: recall of the third token after two, one, none of its item"
local loads, by_cue, half = {}, {{}, {}, {}, {}}, {{}, {}, {}, {}}
out.load = {}
for _, n in ipairs {2, 4, 8, 16, 32} do
  if fits(n, 0) then
    local e <const> = recall(tasks_of(n, 0))
    loads[#loads + 1] = n
    out.load[n] = {two = e[2], one = e[1], none = e[0], chance = 1 / (SIZE * n)}
    say("%2d items: %s after two, %s after one, %.2f after none; chance %.2f",
        n, essay.show(e[2]), essay.show(e[1]), e[0].mean, 1 / (SIZE * n))
    for cue = 0, 2 do
      local row <const> = e[2 - cue]
      by_cue[cue + 1][#loads] = row.mean
      half[cue + 1][#loads] = (row.high - row.low) / 2
    end
    by_cue[4][#loads], half[4][#loads] = 1 / (SIZE * n), 0
  end
end

---- distance ----

heading "distance: 8 items, other random tokens before the test"
local gaps, at_gap, gap_half = {}, {{}, {}}, {{}, {}}
out.distance = {}
for _, gap in ipairs {0, 32, 128, 384} do
  if fits(8, gap) then
    local e <const> = recall(tasks_of(8, gap))[2]
    gaps[#gaps + 1] = gap
    at_gap[1][#gaps], gap_half[1][#gaps] = e.mean, (e.high - e.low) / 2
    at_gap[2][#gaps], gap_half[2][#gaps] = 1 / (SIZE * 8), 0
    out.distance[gap] = e
    say("%3d tokens between: %s", gap, essay.show(e))
  end
end

---- attention and heads knocked out ----

local n = 16
while not fits(n, 0) do n = n // 2 end
local tasks <const> = tasks_of(n, 0)
local scores <const> = qkv.heads(m, {n = 3, length = math.min(25, (c.n_ctx - 1)
  // 2), seed = job.seed + 700})
local K <const> = math.min(8, c.n_layers * c.n_heads // 2)

local function silenced(heads)
  local edits = {}
  for i, one in ipairs(heads) do
    edits[i] = {site = "z", layer = one.layer, head = one.head, op = "zero"}
  end
  return edits
end
local induction <const> = scores:top("induction", K)
local taken, others = {}, {}
for _, one in ipairs(induction) do taken[essay.name(one)] = true end
for _, i in ipairs(essay.shuffled(c.n_layers * c.n_heads, job.seed)) do
  local one <const> = {layer = i // c.n_heads, head = i % c.n_heads}
  if #others < K and not taken[essay.name(one)] then
    others[#others + 1] = one
  end
end

heading(("knocked out: %d items, the third token after two"):format(n))
local labels, values, error_of = {}, {}, {}
local function condition(name, words, edits)
  local e <const> = recall(tasks, edits)[2]
  out[name] = e
  say("%-34s %s", words, essay.show(e))
  labels[#labels + 1], values[#values + 1] = words, e.mean
  error_of[#error_of + 1] = (e.high - e.low) / 2
end
condition("intact", "intact", nil)
condition("blind", "no sight of the item itself",
          blind(tasks, function(item) return item end))
condition("blind_other", "no sight of another item",
          blind(tasks, function(item, count) return (item + 1) % count end))
condition("no_induction", ("%d induction heads silent"):format(K),
          silenced(induction))
condition("no_others", ("%d other heads silent"):format(K), silenced(others))
out.chance = 1 / (SIZE * n)
say("%-34s %.2f", "chance", out.chance)

---- pictures ----

local note <const> = ("%d lists, seed %d; bands: as wide as Wilson's 95 %% "
  .. "interval"):format(job.samples, job.seed)
essay.draw(job, qkv.plot.grid({
  qkv.plot.line(by_cue, {x = loads, band = half, title = "Recall and load",
    labels = {"after two tokens", "after one", "after none", "chance"},
    note = note,
    xlabel = "items held", ylabel = "recall"}),
  qkv.plot.line(at_gap, {x = gaps, band = gap_half,
    title = "Recall and distance", note = "8 items, after two tokens",
    labels = {"recall", "chance"},
    xlabel = "tokens between", ylabel = "recall"})}, {columns = 2}),
  "e16_recall.png")
essay.draw(job, qkv.plot.bar(values, {labels = labels, error = error_of,
  title = "Recall with attention knocked out", horizontal = true,
  note = ("%d items; chance %.2f; %s"):format(n, out.chance, note),
  xlabel = "recall"}), "e16_knocked_out.png")
return out

--[[ e7_heads.lua - heads split the work and specialise

    qkv scripts/essay/e7_heads.lua [MODEL] [SEED] [FOLDER] [SAMPLES]

Question: do heads do different things, and does what a head looks at tell what
the model loses without it? Per-head scores (qkv.heads) of all layers; then each
head is silenced (z = 0) in turn, and the loss measured on SAMPLES (2) lists of
20 random tokens that stand twice (the second copy can only be known from the
first) and on SAMPLES texts. If heads specialise, heads with a high induction or
previous-token score (above 0.4) are missed in the lists and not in the texts,
more than others are: their mean damage against that of all others, with a
permutation test; and the heads with the highest induction scores silenced
together, against as many others at random.
Model: SmolLM2-135M-Instruct, or any decoder with a tokenizer. What should come
out: a few heads with scores of 0.8 and more among 270; more damage to the lists
by named heads than by others; the lists lost with four to eight heads, the
texts hardly touched. About a minute, nearly all of it the 270 heads one by one.
Source: Elhage et al. 2021, Olsson et al. 2022, Voita et al. 2019.
Where it does not hold: most heads have no name here, and two in five look at
the first token most of the time; the heads that are missed most, in lists and
texts alike, are some of the second layer's, whose scores are not remarkable;
over all heads the induction score does not rank the damage (Spearman's rho near
0), as single heads are stood in for; zero is a value that heads never take.
]]
local qkv <const> = require "qkv"
local essay <const> = dofile(
  (debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "essay.lua")
local say <const>, heading <const> = essay.say, essay.heading

local job <const> = essay.begin(arg, 2)
local m <const>, c <const> = job.m, job.m.config
local out <const> = {}

local TEXTS <const> = {
  "The old man took his boat out on the lake every morning, and his dog "
  .. "waited for him on the shore until he came back.",
  "Water boils at a lower temperature in the mountains because the pressure "
  .. "of the air is lower there than it is at the sea.",
  "She opened the letter slowly, read it twice, and put it back in the drawer "
  .. "without saying a word to anyone in the house.",
  "Most of the bridges in the city were built in the last century, when trade "
  .. "on the river was more important than it is today."}

---- what heads look at ----

local bos <const> = essay.bos(m)
local readable <const> = {}
for i, text in ipairs(TEXTS) do
  readable[i] = essay.join(bos, m:tokens(text))
end
local h <const> = qkv.heads(m, {n = 4, seed = job.seed, texts = readable})
print(h)
local NAMES <const> = {"induction", "previous", "duplicate", "first", "self"}
heading "how many heads give more than half of their attention to one place"
out.named = {}
for _, name in ipairs(NAMES) do
  out.named[name] = h[name]:gt(0.5):sum()
  say("%-10s %3d of %d", name, out.named[name], c.n_layers * c.n_heads)
end
out.best = h:top("induction", 1)[1]
out.previous = h:top("previous", 1)[1]

---- one head after another silenced ----

local n <const> = math.min(20, (c.n_ctx - #bos) // 2)
local lists, texts = {}, {}
for i = 1, job.samples do
  local ids <const> = essay.random_tokens(m, n, job.seed * 1000 + i)
  lists[i] = essay.join(bos, ids, ids)
  texts[i] = readable[(i - 1) % #TEXTS + 1]
end

-- Mean surprisal of a run from a position on, bits a token.
local function loss_from(from)
  return function(r)
    local bits <const> = r:surprisal()
    return bits:slice{pos = {from = from, to = #bits}}:mean()
  end
end

-- Of a list only the second copy counts, but for its first token, which
-- nothing announces.
local tests <const> = {
  lists = {r = m:run(lists, {logits = false}), loss = loss_from(#bos + n + 1)},
  texts = {r = m:run(texts, {logits = false}), loss = loss_from(1)}}
local damage <const> = {}               -- bits a token more [layer, head]
for kind, test in pairs(tests) do
  local s <const> = qkv.ablate{run = test.r, site = "z",
    axes = {"layer", "head"}, metric = test.loss}
  damage[kind], out[kind] = s.change, s.clean
end
heading(("each head silenced: %d lists (%.2f bits a token), %d texts (%.2f)")
        :format(job.samples, out.lists, job.samples, out.texts))
for _, kind in ipairs {"lists", "texts"} do
  local line = {}
  for i, one in ipairs(damage[kind]:ranked(4)) do
    line[i] = ("%s %+.2f"):format(essay.name(one), one.value)
  end
  say("%s suffer most without %s bits a token", kind, table.concat(line, ", "))
  out["largest_" .. kind] = damage[kind]:max()
  out["rho_" .. kind] = essay.spearman(h.induction, damage[kind], job.seed)
end

-- Mean damage of the heads that a score names, and of all others.
local NAMED <const> = 0.4
for _, name in ipairs {"induction", "previous"} do
  local named <const> = h[name]:gt(NAMED)
  if named:sum() > 0 then
    local row <const> = {n = named:sum()}
    for _, kind in ipairs {"lists", "texts"} do
      row[kind] = essay.difference(damage[kind], named, job.seed)
    end
    out["missed_" .. name] = row
    say("the %d heads with %s above %.1f: lists %+.2f against %+.2f (p %.3f), "
        .. "texts %+.2f against %+.2f (p %.3f)", row.n, name, NAMED,
        row.lists.inside, row.lists.outside, row.lists.p, row.texts.inside,
        row.texts.outside, row.texts.p)
  end
end
say("induction score and damage over all heads: lists rho %+.2f (p %.3f), "
    .. "texts %+.2f (p %.3f)", out.rho_lists.rho, out.rho_lists.p,
    out.rho_texts.rho, out.rho_texts.p)

---- many at once ----

local COUNTS <const> = {0, 1, 2, 4, 8}
local DRAWS <const> = 4
local ranked <const> = h:top("induction", COUNTS[#COUNTS])

-- {lists =, texts =}: bits a token more without these heads.
local function silence(heads)
  local edits, more = {}, {}
  for i, one in ipairs(heads) do
    edits[i] = {site = "z", layer = one.layer, head = one.head, op = "zero"}
  end
  for kind, test in pairs(tests) do
    local x = test.r:fork{edits = edits, logits = false}:measure(test.loss)
    more[kind] = (type(x) == "table" and essay.mean(x) or x) - out[kind]
  end
  return more
end

-- k heads that are not among the highest induction scores, at random.
local function others(k, seed)
  local taken, list = {}, {}
  for _, one in ipairs(ranked) do taken[essay.name(one)] = true end
  for _, i in ipairs(essay.shuffled(c.n_layers * c.n_heads, seed)) do
    local one <const> = {layer = i // c.n_heads, head = i % c.n_heads}
    if #list < k and not taken[essay.name(one)] then list[#list + 1] = one end
  end
  return list
end

heading "the heads with the highest induction scores silenced together"
say("bits a token more; random heads: mean ± standard error of %d draws",
    DRAWS)
out.together = {}
local line = {{}, {}, {}, {}}
local band = {{}, {}, {}, {}}
for i, k in ipairs(COUNTS) do
  local g <const> = silence({table.unpack(ranked, 1, k)})
  local control = {lists = {}, texts = {}}
  for d = 1, k > 0 and DRAWS or 1 do
    local x <const> = silence(others(k, job.seed * 100 + 10 * i + d))
    for kind, list in pairs(control) do list[d] = x[kind] end
  end
  local row = {k = k, lists = g.lists, texts = g.texts}
  for kind, list in pairs(control) do
    local t <const> = qkv.tensor(list)
    row["random_" .. kind] = t:mean()
    row["se_" .. kind] = #list > 1 and t:std() / math.sqrt(#list) or 0
  end
  out.together[i] = row
  say("%d: lists %+.2f, texts %+.2f; random: lists %+.2f ± %.2f, texts "
      .. "%+.2f ± %.2f", k, row.lists, row.texts, row.random_lists,
      row.se_lists, row.random_texts, row.se_texts)
  for j, key in ipairs {"lists", "texts", "random_lists", "random_texts"} do
    local kind <const> = key:match "random_(.*)"
    line[j][i], band[j][i] = row[key], kind and row["se_" .. kind] or 0
  end
end

---- pictures ----

local maps = {}
for i, name in ipairs {"induction", "previous", "duplicate", "first",
                       "entropy", "distance"} do maps[i] = h:plot(name) end
essay.draw(job, qkv.plot.grid(maps, {columns = 3}), "e7_scores.png")
local note <const> = ("head silenced; %d lists, %d texts, seed %d"):format(
  job.samples, job.samples, job.seed)
local function map(kind, title)
  return qkv.plot.heatmap(damage[kind], {title = title, note = note,
    label = "bits a token", scale = "diverging"})
end
essay.draw(job, qkv.plot.grid({map("lists", "Loss on repeated lists"),
                               map("texts", "Loss on texts")}, {columns = 2}),
           "e7_damage.png")
essay.draw(job, qkv.plot.line(line, {x = COUNTS, band = band,
  labels = {"lists", "texts", "lists, random heads", "texts, random heads"},
  title = "Heads silenced together", xlabel = "heads, by induction score",
  ylabel = "loss, bits a token more",
  note = ("band: standard error over %d draws of random heads"):format(DRAWS)}),
  "e7_together.png")
return out

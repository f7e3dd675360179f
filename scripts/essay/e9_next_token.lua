--[[ e9_next_token.lua - text is drawn from a distribution, token by token

    qkv scripts/essay/e9_next_token.lua [MODEL] [SEED] [FOLDER] [SAMPLES]

Question: is a text produced one token at a time from a probability
distribution, and where does its order come from, as no grammar is built in?
  next      the distribution after a prompt; SAMPLES (200) draws by m:generate
            against it (G statistic; p from 2,000 simulated sets of draws).
            Controls: temperature near 0 always gives the most likely token.
  along     surprisal and entropy along a text. If the model knows how sure it
            is, its surprisal is on average its entropy. Control: the same words
            in random order cost more bits a token, though every word is there;
            a model with random weights hardly minds.
  lens      at which layer is the last layer's answer there (logit lens)?
Model: SmolLM2-135M-Instruct, or any decoder with a tokenizer. What should come
out: p above 0.01, in 99 seeds of 100; surprisal a bit above the entropy; three
bits or more from text to shuffled words; agreement that grows in the last
third of the layers. About 15 s. Source: Shannon 1951 (prediction and entropy
of English); nostalgebraist 2020 (logit lens).
Where it does not hold: the lens reads middle layers with the last layer's
dictionary, so that what it cannot read may be there all the same; one text of
a hundred tokens says little about English; the instruct model was trained
further on dialogues, and BOS stands in front here.
]]
local qkv <const> = require "qkv"
local here <const> = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local essay <const> = dofile(here .. "essay.lua")
local say <const>, heading <const> = essay.say, essay.heading

local job <const> = essay.begin(arg, 200)
local m <const>, c <const> = job.m, job.m.config
local out <const> = {}
local bits <const> = math.log(2)

local PROMPT <const> = "The capital of France is"
local WORDS <const> = {}
for word in ([[
The village lay at the end of a long valley, and in winter the road was closed
by snow for weeks. People kept wood and flour in the house, and they visited
each other in the evenings. An old teacher told stories by the fire, and the
children listened until they fell asleep. When spring came and the road was
open again, the first cart brought letters, salt and news from the town.
]]):gmatch "%S+" do WORDS[#WORDS + 1] = word end

---- the next token ----

local bos <const> = essay.bos(m)
local prompt <const> = essay.join(bos, m:tokens(PROMPT))
local r <const> = m:run(prompt)
heading(("after '%s'"):format(PROMPT))
local top <const> = r:top(10)
for i = 1, 5 do
  say("%-12s %6.2f %%", top[i].piece, 100 * top[i].prob)
end
local logs <const> = r.logits[-1]:log_softmax()
out.sum = logs:exp():sum()
out.entropy = -(logs:exp() * logs):sum() / bits
out.next = top[1].piece
say("%d tokens have a share of it; they sum to %.6f; entropy %.2f bits",
    c.d_vocab, out.sum, out.entropy)

-- Draws, counted in cells: the ten likeliest tokens, and all others together.
local share, cell_of, rest = {}, {}, 1
for i, t in ipairs(top) do
  share[i], cell_of[t.id], rest = t.prob, i, rest - t.prob
end
share[#share + 1] = rest
local drawn = {}
for i = 1, #share do drawn[i] = 0 end
for i = 1, job.samples do
  local _, ids = m:generate(prompt, {n = 1, temperature = 1,
    stop_at_eos = false, seed = job.seed * 100000 + i})
  local cell <const> = cell_of[ids[1]] or #share
  drawn[cell] = drawn[cell] + 1
end

local function g_of(counts)     -- twice the log-likelihood ratio
  local g = 0
  for i, n in ipairs(counts) do
    if n > 0 then g = g + 2 * n * math.log(n / (share[i] * job.samples)) end
  end
  return g
end
local larger, SIMULATED <const> = 1, 2000
local u <const> = qkv.rand({SIMULATED, job.samples}, {seed = job.seed}):table()
for _, row in ipairs(u) do
  local counts = {}
  for i = 1, #share do counts[i] = 0 end
  for _, x in ipairs(row) do
    local i = 1
    while i < #share and x >= share[i] do x, i = x - share[i], i + 1 end
    counts[i] = counts[i] + 1
  end
  if g_of(counts) >= g_of(drawn) - 1e-9 then larger = larger + 1 end
end
out.g, out.p = g_of(drawn), larger / (SIMULATED + 1)
say("%d draws in %d cells: G %.1f, p %.2f that draws of the distribution",
    job.samples, #share, out.g, out.p)
say("differ from it as much")
local cold = 0
for i = 1, 5 do
  local _, ids = m:generate(prompt, {n = 1, temperature = 1e-4,
    stop_at_eos = false, seed = job.seed + i})
  cold = cold + (ids[1] == top[1].id and 1 or 0)
end
out.cold = cold / 5
say("temperature near 0: %d of 5 draws are the most likely token", cold)

---- along a text ----

-- Surprisal and entropy of each token but the first, bits.
local function along(model, words)
  local ids <const> = essay.join(essay.bos(model),
                                 model:tokens(table.concat(words, " ")))
  local run <const> = model:run(ids, {logits = "all"})
  local l <const> = run.logits:log_softmax "vocab"
  local n <const> = #ids
  return run:surprisal():slice{pos = {from = 1, to = n}},
    (-(l:exp() * l):sum "vocab" / bits):slice{pos = {from = 0, to = n - 1}},
    run
end

local function shuffled(seed)
  local words = {}
  for i, at in ipairs(essay.shuffled(#WORDS, seed)) do
    words[i] = WORDS[at + 1]
  end
  return words
end

local SHUFFLES <const> = 8
-- How many bits a token the order saves: a bootstrap over shuffled texts.
local function order_saves(model, plain)
  local x = {}
  for i = 1, SHUFFLES do
    x[i] = along(model, shuffled(job.seed * 1000 + i)):mean() - plain
  end
  return essay.bootstrap(x, job.seed)
end

local surprisal <const>, entropy <const>, text_run <const> = along(m, WORDS)
out.surprisal = essay.bootstrap(surprisal:table(), job.seed)
out.expected = essay.bootstrap(entropy:table(), job.seed)
out.gap = essay.bootstrap((surprisal - entropy):table(), job.seed)
out.order = order_saves(m, out.surprisal.mean)
heading(("along a text of %d tokens, bits a token"):format(#surprisal))
say("surprisal %s; entropy %s", essay.show(out.surprisal),
    essay.show(out.expected))
say("surprisal less entropy %s (0: as sure as it should be)",
    essay.show(out.gap))
out.r = qkv.correlation(surprisal, entropy)
say("their correlation over tokens: r %.2f", out.r)
say("the same words in random order: %s more (%d orders)",
    essay.show(out.order), SHUFFLES)
say("a token drawn blindly: %.1f", math.log(c.d_vocab) / bits)
local ok <const>, random_model = pcall(qkv.open, here .. "../../data/tiny.gguf")
if ok then
  local untrained <const> = along(random_model, WORDS):mean()
  out.untrained = order_saves(random_model, untrained)
  say("a model with random weights: the order saves %s",
      essay.show(out.untrained))
end

---- layer by layer ----

local lens <const> = text_run:lens(1)
local n <const> = #text_run.pieces
local agree, low, high = {}, {}, {}
for layer, row in ipairs(lens) do
  local hits = 0
  for pos = 1, n do
    if row[pos][1].id == lens[#lens][pos][1].id then hits = hits + 1 end
  end
  local e <const> = essay.share(hits, n)
  agree[layer], low[layer], high[layer] = e.mean, e.low, e.high
end
out.agree = agree
heading "logit lens: share of positions with the last layer's answer"
for layer = 1, #agree, math.max(1, #agree // 6) do
  say("after layer %2d: %.2f [%.2f, %.2f]", layer - 1, agree[layer],
      low[layer], high[layer])
end
out.half = #agree
for layer = #agree, 1, -1 do
  if agree[layer] < 0.5 then break end
  out.half = layer - 1
end
say("half of them from layer %d on", out.half)

---- pictures ----

local pieces, probs = {}, {}
for i, t in ipairs(top) do pieces[i], probs[i] = t.piece, t.prob end
essay.draw(job, qkv.plot.bar(probs, {labels = pieces, horizontal = true,
  title = ("After '%s'"):format(PROMPT), xlabel = "probability"}),
  "e9_next.png")
essay.draw(job, qkv.plot.line({surprisal, entropy}, {
  labels = {"surprisal", "entropy"}, title = "Along a text",
  note = ("%d tokens; mean surprisal %.2f, mean entropy %.2f bits"):format(
    #surprisal, out.surprisal.mean, out.expected.mean),
  xlabel = "token", ylabel = "bits"}), "e9_along.png")
local half_width = {}
for i = 1, #agree do half_width[i] = (high[i] - low[i]) / 2 end
essay.draw(job, qkv.plot.line(agree, {band = half_width,
  title = "Logit lens: the last layer's answer, layer by layer",
  note = ("%d positions of one text; band: half the 95 %% interval"):format(n),
  xlabel = "layer", ylabel = "share of positions"}), "e9_lens.png")
return out

--[[ tour.lua - a language model opened up, in one walk

    qkv scripts/examples/tour.lua [MODEL]

Question: what is in a language model, and can every part be read and changed?
Model: SmolLM2-135M-Instruct (Q4_1) unless another is named. What comes out:
tokens, the next-token table, attention of a layer, the best induction and
previous-token heads, embeddings of words, a head switched off, the logit lens,
20 new tokens; five pictures in ./plots. Takes some seconds. Nothing is random
but the repeated tokens of the induction test (seed 1).

The numbers are returned in a table, so that a test can look at them.
]]
local qkv <const> = require "qkv"

local name <const> = arg and arg[1] or "smollm2"
local m <const> = qkv.open(name)
local out <const> = {}
local folder <const> = "plots"
os.execute("mkdir -p " .. folder)

local function say(form, ...) print(form:format(...)) end
-- A token's piece in quotes, to show its spaces.
local function quoted(piece) return '"' .. piece:gsub("\n", "\\n") .. '"' end
local function heading(text) print("\n== " .. text) end
local function draw(plot, file)
  local ok, message = pcall(plot.save, plot, folder .. "/" .. file)
  say(ok and "   picture: %s/%s" or "   no picture %s/%s: " .. tostring(message)
      :gsub("%%", "%%%%"), folder, file)
end

print(m)

heading "tokens"
local prompt <const> =
  "When Mary and John went to the store, John gave a drink to"
local r <const> = m:run(prompt)
print("   " .. table.concat(r.pieces, "|"))

heading "the next token"
for _, t in ipairs(r:top(5)) do
  say("   %-12s %6.2f %%", quoted(t.piece), 100 * t.prob)
end
out.next, out.prob = r:top(1)[1].piece, r:top(1)[1].prob

local layer <const> = math.min(3, m.config.n_layers - 1)
heading("attention: what the heads of layer " .. layer .. " look at")
print("   " .. tostring(r("pattern", layer)))
draw(r:plot_attention(layer), "attention.png")

heading "heads that look back: previous token, induction"
-- 25 random tokens twice: an induction head attends from a token to the one
-- after its earlier occurrence, 24 positions back (TransformerLens's stripe).
local n <const> = math.min(25, (m.config.n_ctx - 1) // 2)
local random <const> = qkv.randint({n}, {low = math.min(1000,
  m.config.d_vocab // 2), high = m.config.d_vocab, seed = 1}):table()
local twice = {m.bos}
for _ = 1, 2 do
  for _, id in ipairs(random) do twice[#twice + 1] = id end
end
local repeated <const> = m:run(twice, {names = "pattern", logits = false})
local patterns <const> = repeated "pattern"
local first <const> = #twice - n
local function stripe(offset, from)
  local d <const> = patterns:diagonal(-offset)
  return d:slice{[-1] = {from = from - offset, to = #twice - offset}}:mean(-1)
end
local function best(what, score)
  for i, h in ipairs(score:ranked(3)) do
    say("   %-14s L%dH%d  %.2f", what, h.layer, h.head, h.value)
    if i == 1 then out[what] = h end
  end
  return score
end
best("previous", stripe(1, 1))
local induction <const> = best("induction", stripe(n - 1, first))
draw(qkv.plot.heatmap(induction, {title = "Induction score",
  xlabel = "head", ylabel = "layer", label = "attention"}), "induction.png")

heading "embeddings of words"
local groups <const> = {
  royal = {" king", " queen", " prince", " princess", " throne", " crown"},
  fruit = {" apple", " orange", " banana", " grape", " lemon", " peach"}}
local words, ids, kinds = {}, {}, {}
for _, kind in ipairs {"royal", "fruit"} do
  for _, word in ipairs(groups[kind]) do
    local ok, id = pcall(m.token, m, word)
    if ok then
      words[#words + 1], ids[#ids + 1] = word:sub(2), id
      kinds[#kinds + 1] = kind
    end
  end
end
if #words >= 4 then
  local e <const> = m.embed:take{vocab = ids}
  local similarity <const> = qkv.cosine(e)
  say("   %d words; cosine of %s and %s: %.2f, of %s and %s: %.2f", #words,
      words[1], words[2], similarity[0][1], words[1], words[#words],
      similarity[0][#words - 1])
  out.alike, out.unlike = similarity[0][1], similarity[0][#words - 1]
  draw(qkv.plot.heatmap(similarity, {rows = words, cols = words,
    scale = "diverging", title = "Cosine of token embeddings",
    label = "cosine"}), "cosine.png")
  draw(qkv.pca(e, {k = 2}):plot{labels = words, groups = kinds,
    title = "Royal words and fruit"}, "pca.png")
end

heading "one head switched off"
local target <const> = r:top(1)[1]
local effect = {}
local heads <const> = m.config.n_heads
local some <const> = m.config.n_layers * 3 // 5
for h = 0, heads - 1 do
  local changed <const> = m:run(prompt, {edits = {
    {site = "z", layer = some, head = h, op = "zero"}}})
  effect[h + 1] = changed:logit(target.id) - target.logit
end
local worst = 1
for h = 2, heads do
  if math.abs(effect[h]) > math.abs(effect[worst]) then worst = h end
end
say("   layer %d: without head %d the logit of %s changes by %+.3f", some,
    worst - 1, quoted(target.piece), effect[worst])
out.effect = effect[worst]

heading "logit lens"
local lens <const> = r:lens(1)
for l = 1, #lens, math.max(1, #lens // 6) do
  local t <const> = lens[l][#lens[l]][1]
  say("   after layer %2d: %-12s %6.2f %%", l - 1, quoted(t.piece),
      100 * t.prob)
end
local last <const> = lens[#lens][#lens[#lens]][1]
out.lens = last.piece
draw(r:plot_lens(), "lens.png")

heading "20 new tokens"
io.write "   Once upon a time"
out.text = m:generate("Once upon a time", {n = 20,
  stream = function(piece) io.write(piece) io.flush() end})
print()

return out

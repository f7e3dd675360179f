--[[ e6_lookup.lua - query, key and value work like a database look-up

    qkv scripts/essay/e6_lookup.lua [MODEL] [SEED] [FOLDER] [SAMPLES]

Question: does a query select keys, and does the head return their values?
SAMPLES (8) lists of 25 different random tokens stand twice in a row. While the
second copy is read, each token asks "what came after me?": the record is the
token after its first occurrence. Measured for the two heads with the highest
induction score (chosen on other random tokens):
  look-up   is the key with the most attention the right one? Chance is one of
            the keys in sight. Controls: all heads; the same places in lists
            whose second half is new.
  value     the cosine of what the head returns, z, with the value of the right
            record and with those of the others.
  update    two records exchange their values in the upper half of the model,
            keys and queries as before: the answer should change from the one to
            the other. Control: two other records exchange theirs.
Model: SmolLM2-135M-Instruct, or any decoder. What should come out: look-up 0.8
or more against 0.03, z near the value of the record, answers that move with
the values. Some ten seconds. Source: the induction heads of Olsson et al. 2022;
attention as a soft look-up: Bahdanau et al. 2015, Graves et al. 2014.
Where it does not hold: the returned value is a mixture, not one record; the
answer is given by several heads together; few heads look up by content.
]]
local qkv <const> = require "qkv"
local essay <const> = dofile(
  (debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "essay.lua")
local say <const>, heading <const> = essay.say, essay.heading

local job <const> = essay.begin(arg, 8)
local m <const>, c <const> = job.m, job.m.config
local out <const> = {}
local group <const> = c.n_heads // c.n_kv_heads

---- the lists ----

local bos <const> = essay.bos(m)
local before <const> = #bos                     -- positions in front
local n <const> = math.min(25, (c.n_ctx - before) // 2)
local inputs, fresh, lists = {}, {}, {}
for i = 1, job.samples do
  local ids <const> = essay.random_tokens(m, 2 * n, job.seed * 1000 + i)
  local list <const> = {table.unpack(ids, 1, n)}
  lists[i] = list
  inputs[i] = essay.join(bos, list, list)
  fresh[i] = essay.join(bos, ids)               -- control: nothing repeats
end
-- Query of item i (from 0) in the second copy, and the key of its record.
local function query_of(i) return before + n + i end
local function key_of(i) return before + i + 1 end

local function each(r) return #r > 1 and function(i) return r:seq(i) end
                              or function() return r end end

local repeated <const> = m:run(inputs, {names = {"pattern", "z", "v"},
                                        logits = false})
local unrepeated <const> = m:run(fresh, {names = "pattern", logits = false})

---- look-up ----

-- Share of queries whose strongest key is that of the record, [layer, head],
-- for each sequence.
local function hits(runs)
  local all = {}
  for s = 0, job.samples - 1 do
    local found <const> = each(runs)(s)("pattern"):argmax "key"
    local sum = 0
    for i = 0, n - 1 do
      sum = sum + found:at{query = query_of(i)}:eq(key_of(i))
    end
    all[s + 1] = sum / n
  end
  return all
end
local right <const>, by_accident <const> = hits(repeated), hits(unrepeated)
local chance = 0
for i = 0, n - 1 do chance = chance + 1 / (query_of(i) + 1) / n end

-- The heads to look at are chosen on other random tokens.
local scores <const> = qkv.heads(m, {n = 4, length = n, seed = job.seed + 500})
local best <const> = scores:top("induction", 2)

local function over_samples(list, head)
  local x = {}
  for i, t in ipairs(list) do x[i] = t[head.layer][head.head] end
  return essay.bootstrap(x, job.seed)
end
heading(("look-up: is the strongest key the right record? %d lists of %d")
        :format(job.samples, n))
out.chance = chance
for i, head in ipairs(best) do
  local it <const> = {head = essay.name(head), layer = head.layer,
                      index = head.head, hit = over_samples(right, head),
                      unrepeated = over_samples(by_accident, head)}
  out[i] = it
  say("%-7s induction %.2f: right %s; second half new %s", it.head, head.value,
      essay.show(it.hit), essay.show(it.unrepeated))
end
local share <const> = qkv.stack(right, "seq"):mean "seq"
out.mean_hit = share:mean()
out.n_above_half = share:gt(0.5):sum()
say("all %d heads: mean %.3f, %d above 0.5; chance %.3f",
    c.n_layers * c.n_heads, out.mean_hit, out.n_above_half, chance)

---- value ----

heading "value: cosine of what the head returns with values of records"
for i, head in ipairs(best) do
  local own, others, weight = {}, {}, {}
  for s = 0, job.samples - 1 do
    local r <const> = each(repeated)(s)
    local v <const> = r("v", head.layer)
      :at{kv_head = head.head // group}
      :slice{pos = {from = key_of(0), to = key_of(n)}}        -- [pos, d_head]
    local z <const> = r("z", head.layer):at{head = head.head}
      :slice{pos = {from = query_of(0), to = query_of(n)}}
    local alike <const> = qkv.cosine(z, v)                    -- [item, record]
    local hit <const> = alike:diagonal()
    own[s + 1] = hit:mean()
    others[s + 1] = (alike:sum() - hit:sum()) / (n * n - n)
    weight[s + 1] = r("pattern", head.layer)[head.head]
      :slice{query = {from = query_of(0), to = query_of(n)},
             key = {from = key_of(0), to = key_of(n)}}:diagonal():mean()
  end
  out[i].own = essay.bootstrap(own, job.seed)
  out[i].others = essay.bootstrap(others, job.seed)
  out[i].weight = essay.bootstrap(weight, job.seed)
  say("%-7s right record %s, other records %s; its weight %s", out[i].head,
      essay.show(out[i].own), essay.show(out[i].others),
      essay.show(out[i].weight))
end

---- update ----

-- Edits that exchange the values at two positions from `layer` on.
local function exchange(edits, seq, r, layer, a, b)
  for l = layer, c.n_layers - 1 do
    local v <const> = r("v", l)
    for _, pair in ipairs {{a, b}, {b, a}} do
      edits[#edits + 1] = {site = "v", layer = l, seq = seq, pos = pair[1],
                           value = v[pair[2]]:clone()}
    end
  end
end

-- Three items in every list: one is asked, the second exchanges its value with
-- it, and in the control with the third.
local asked <const>, other <const>, third <const> = n // 3, 2 * n // 3, n - 2
local function edits_of(a, b)
  local edits = {}
  for s = 0, job.samples - 1 do
    exchange(edits, s, each(repeated)(s), c.n_layers // 2, key_of(a), key_of(b))
  end
  return edits
end
-- Log-odds of the asked record's token against the other's, nats, after the
-- asked token; each sequence ends there.
local asking = {}
for i, ids in ipairs(inputs) do
  asking[i] = {table.unpack(ids, 1, query_of(asked) + 1)}
end
local function log_odds(edits)
  local r <const>, x = m:run(asking, {edits = edits}), {}
  for s = 0, job.samples - 1 do
    local one <const> = each(r)(s)
    x[s + 1] = one:logit(lists[s + 1][asked + 2])
               - one:logit(lists[s + 1][other + 2])
  end
  return x
end
local plain <const> = log_odds {}
local swapped <const> = log_odds(edits_of(asked, other))
local control <const> = log_odds(edits_of(other, third))
local function less(a, b)
  local x = {}
  for i = 1, #a do x[i] = a[i] - b[i] end
  return essay.bootstrap(x, job.seed)
end
out.plain = essay.bootstrap(plain, job.seed)
out.swapped = less(swapped, plain)
out.control = less(control, plain)
heading(("update: values of two records exchanged in layers %d to %d"):format(
  c.n_layers // 2, c.n_layers - 1))
say("log-odds, the asked record against the other: %s nats",
    essay.show(out.plain, "%.1f"))
say("the two exchange their values: changed by %s",
    essay.show(out.swapped, "%.1f"))
say("the other and a third exchange theirs: changed by %s",
    essay.show(out.control, "%.1f"))

---- one query, shown ----

local r <const>, head <const> = each(repeated)(0), best[1]
local q <const> = query_of(asked)
local row <const> = r("pattern", head.layer)[head.head][q]
local v <const> = r("v", head.layer):at{kv_head = head.head // group}
local z <const> = r("z", head.layer)[q][head.head]
local weights <const>, keys = row:topk(math.min(6, #row))
heading(("%s asks: what came after '%s'? The keys that it selects"):format(
  essay.name(head), r:piece(q)))
for i = 0, #weights - 1 do
  say("  weight %.3f  cos(z, value) %5.2f  '%s', after '%s'", weights[i],
      qkv.cosine(z, v[keys[i]]), r:piece(keys[i]),
      keys[i] > 0 and r:piece(keys[i] - 1) or "")
end

local shown <const> = r("pattern", head.layer)[head.head]
  :slice{query = {from = query_of(0), to = query_of(n)},
         key = {from = 0, to = before + n}}
local rows, cols = {}, {}
for i = 1, n do rows[i] = r:piece(query_of(i - 1)) end
for i = 1, before + n do cols[i] = r:piece(i - 1) end
essay.draw(job, qkv.plot.heatmap(shown, {rows = rows, cols = cols,
  title = "Look-up by " .. essay.name(head), range = {0, 1},
  note = ("queries: the second copy of %d random tokens; keys: the first")
         :format(n), xlabel = "key", ylabel = "query", label = "attention"}),
  "e6_lookup.png")
return out

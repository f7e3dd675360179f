-- worker.lua - the qkv side of bench.py: worker.lua MODEL
--
-- Reads one request a line and answers with one line of JSON when the work is
-- done and its numbers have been read; bench.py holds the clock. peer.py
-- answers the same requests. IDS: token ids, sequences separated by "/".
--   forward IDS          last logits: the likeliest id, its logit, its lead
--   generate N IDS       N greedy ids, whatever they are
--   record SITES IDS     SITES: "every" or a site's short name; all of these
--   sites                the names that "record every" keeps
--   lens IDS             every layer's likeliest id, its probability and lead
--   pair CLEAN/CORRUPT/RIGHT WRONG    what `patch` patches
--   patch SITE           a sweep: logit difference by layer and pos or head
--   rest                 let go of the last result
-- and of its own:
--   tokens TEXT          ids
--   model                what the model holds, and products for one token
--   memory               resident bytes: now, and at their highest
--   recorded             bytes of the sites that the last result keeps
-- "lead" is the distance to the runner-up: a smaller one than float noise
-- means that either may win. A request that fails answers {"error": ...}.
local qkv <const> = require "qkv"
local m <const> = qkv.open((...))

local function numbers(words)
  local ids = {}
  for word in words:gmatch "%d+" do
    ids[#ids + 1] = math.tointeger(word)
  end
  return ids
end

local function sequences(words)
  local list = {}
  for part in words:gmatch "[^/]+" do
    list[#list + 1] = {ids = numbers(part)}
  end
  return #list == 1 and list[1] or list, list
end

-- A table of lists of numbers or names, or of one value.
local function json(t)
  local function one(x)
    return type(x) == "string" and ('"%s"'):format(x:gsub('[%c"\\]', " "))
      or x ~= x and "NaN" or ("%.17g"):format(x)
  end
  local fields = {}
  for key, value in pairs(t) do
    local text = {}
    for i, x in ipairs(type(value) == "table" and value or {}) do
      text[i] = one(x)
    end
    fields[#fields + 1] = ('"%s":%s'):format(key, type(value) ~= "table"
      and one(value) or "[" .. table.concat(text, ",") .. "]")
  end
  return "{" .. table.concat(fields, ",") .. "}"
end

-- TransformerLens makes attn.hook_result only when it is asked to.
local every <const> = {}
for _, name in ipairs(m:sites()) do
  if not name:find "hook_result$" then
    every[#every + 1] = name
  end
end

local kept, pair                -- the last result; what is patched
local answer <const> = {}

function answer.forward(rest)
  local input, list = sequences(rest)
  local r <const> = m:run(input, {logits = "last"})
  local ids, values, leads = {}, {}, {}
  for i = 1, #list do
    local best <const> = (#list == 1 and r or r:seq(i - 1)):top(2)
    ids[i], values[i] = best[1].id, best[1].logit
    leads[i] = best[1].logit - best[2].logit
  end
  kept = r
  return {ids = ids, values = values, leads = leads}
end

function answer.generate(rest)
  local n <const>, prompt <const> = rest:match "^(%d+) (.*)$"
  local _, ids = m:generate({ids = numbers(prompt)},
    {n = math.tointeger(n), stop_at_eos = false})
  return {ids = ids}
end

function answer.record(rest)
  local sites <const>, ids <const> = rest:match "^(%S+) (.*)$"
  local whole <const> = sites == "every"
  kept = m:run({ids = numbers(ids)}, {names = whole and every or sites,
    logits = whole and "all" or false})
  return {values = {kept("pattern", 0):norm(), kept("pattern", -1):norm(),
    whole and kept("resid_post", -1):norm() or nil}}
end

function answer.sites()
  return {names = every}
end

function answer.lens(rest)
  kept = m:run({ids = numbers(rest)}, {names = "resid_post", logits = false})
  local ids, values, leads = {}, {}, {}
  for layer, by_pos in ipairs(kept:lens(5)) do
    local best <const> = by_pos[#by_pos]
    ids[layer], values[layer] = best[1].id, best[1].prob
    leads[layer] = best[1].prob - best[2].prob
  end
  return {ids = ids, values = values, leads = leads}
end

function answer.pair(rest)
  local clean <const>, corrupt <const>, right <const>, wrong <const> =
    rest:match "^(.*)/(.*)/(%d+) (%d+)$"
  pair = {clean = m:run({ids = numbers(clean)}),
    corrupt = m:run({ids = numbers(corrupt)}),
    right = math.tointeger(right), wrong = math.tointeger(wrong)}
  return {}
end

function answer.patch(site)
  if not qkv.patch then
    return {missing = "qkv.patch"}
  end
  local s <const> = qkv.patch{clean = pair.clean, corrupt = pair.corrupt,
    site = site, axes = {"layer", site == "z" and "head" or "pos"},
    metric = qkv.logit_diff(pair.right, pair.wrong), direction = "denoise"}
  local values = {}
  for _, row in ipairs(s.value:table()) do
    table.move(row, 1, #row, #values + 1, values)
  end
  return {values = values}
end

function answer.rest()
  kept = nil
  collectgarbage()
  collectgarbage()              -- what the first one finalised
  return {}
end

function answer.tokens(text)
  return {ids = m:tokens(text, {special = false})}
end

-- Multiply-adds of one token: every matrix of a block, and attention apart.
function answer.model()
  local c <const> = m.config
  local elements = 0
  for _, name in ipairs(m:weights()) do
    local shape <const> = m:weight(name).shape
    if name:find "^blk%." and #shape == 2 then
      elements = elements + shape[1] * shape[2]
    end
  end
  return {layers = c.n_layers, d_vocab = c.d_vocab, block_products = elements,
    attention = c.n_layers * c.n_heads * c.d_head * 2,
    unembed = c.d_vocab * c.d_model}
end

function answer.memory()
  local bytes = {}
  for line in io.lines "/proc/self/status" do
    local field <const>, kb <const> = line:match "^(Vm%u+):%s+(%d+)"
    if field then
      bytes[field] = 1024 * math.tointeger(kb)
    end
  end
  return {now = bytes.VmRSS, peak = bytes.VmHWM}
end

function answer.recorded()
  local bytes = 0
  for _, name in ipairs(kept:names()) do
    local n = 4                 -- float32
    for _, size in ipairs(kept[name].shape) do
      n = n * size
    end
    bytes = bytes + n
  end
  return {bytes = bytes}
end

io.stdout:setvbuf "line"
print "ready"
for line in io.lines() do
  local verb <const>, rest <const> = line:match "^(%a+) ?(.*)$"
  local ok <const>, said <const> = pcall(answer[verb], rest)
  print(json(ok and said or {error = tostring(said)}))
end

-- worker.lua - the qkv side of bench.py: worker.lua MODEL
--
-- Reads one request a line, answers with one line when the work is done;
-- bench.py holds the clock. peer.py answers the same requests.
--   tokens N TEXT...       the first N ids of the text
--   forward ID...          the most likely next id
--   generate N ID...       N greedy ids
local qkv = require "qkv"
local m = qkv.open((...))

local function numbers(words)
  local ids = {}
  for word in words:gmatch "%d+" do
    ids[#ids + 1] = math.tointeger(word)
  end
  return ids
end

local answer = {}

function answer.tokens(rest)
  local n, text = rest:match "^(%d+) (.*)$"
  local ids = m:tokens(text, {special = false})
  local first = {}
  for i = 1, math.tointeger(n) do
    first[i] = ids[i]
  end
  return table.concat(first, " ")
end

function answer.forward(rest)
  local r = m:run({ids = numbers(rest)}, {logits = "last"})
  return r:top(1)[1].id
end

function answer.generate(rest)
  local n, prompt = rest:match "^(%d+) (.*)$"
  local _, ids = m:generate({ids = numbers(prompt)}, {n = math.tointeger(n)})
  return table.concat(ids, " ")
end

io.stdout:setvbuf "line"
print "ready"
for line in io.lines() do
  local verb, rest = line:match "^(%a+) (.*)$"
  print(answer[verb](rest))
end

--[[ essay.lua - what the scripts of this folder share

Their arguments, [MODEL] [SEED] [FOLDER] [SAMPLES]; printing and pictures;
random tokens; the few statistics that they quote. A script loads it from its
own folder and gets a table of functions.
]]
local qkv <const> = require "qkv"
local essay = {}

---- arguments, words, pictures ----

-- The arguments with their defaults: {m=, name=, seed=, folder=, samples=}.
function essay.begin(args, samples)
  args = args or {}
  local name <const> = args[1] or "smollm2"
  local job <const> = {m = qkv.open(name), name = name,
                       seed = math.tointeger(tonumber(args[2] or 1)),
                       folder = args[3] or ".",
                       samples = math.tointeger(tonumber(args[4] or samples))}
  if not job.seed or not job.samples or job.samples < 1 then
    error("arguments: MODEL SEED FOLDER SAMPLES; the second and the fourth "
          .. "are whole numbers", 2)
  end
  print(job.m)
  print(("   seed %d, %d samples"):format(job.seed, job.samples))
  return job
end

function essay.say(form, ...) print("   " .. form:format(...)) end
function essay.heading(text) print("\n== " .. text) end

-- Save a picture; without gnuplot the numbers are still worth having.
function essay.draw(job, plot, file)
  local path <const> = job.folder .. "/" .. file
  local ok <const>, message = pcall(plot.save, plot, path)
  print("   " .. (ok and "picture: " .. path
                  or "no picture " .. path .. ": " .. message))
end

-- "L18H6" of a record with layer and head.
function essay.name(head) return "L" .. head.layer .. "H" .. head.head end

---- tokens ----

-- The model's token that begins a text, in a list; empty if it has none.
function essay.bos(m)
  local ok <const>, id = pcall(function() return m.bos end)
  return {ok and id or nil}
end

-- n different ids, none of the commonest and rarest 2 % (as in qkv.heads).
function essay.random_tokens(m, n, seed)
  local size <const> = m.config.d_vocab
  local rare <const> = size // 50
  local _, order = qkv.randn({size - 2 * rare}, {seed = seed}):topk(n)
  local ids = order:table()
  for i = 1, n do ids[i] = ids[i] + rare end
  return ids
end

-- 0 .. n - 1 in random order.
function essay.shuffled(n, seed)
  local _, order = qkv.randn({n}, {seed = seed}):sort()
  return order:table()
end

-- Lists put one after another.
function essay.join(...)
  local all = {}
  for _, list in ipairs {...} do table.move(list, 1, #list, #all + 1, all) end
  return all
end

---- statistics ----

function essay.mean(x)
  local sum = 0
  for _, v in ipairs(x) do sum = sum + v end
  return sum / #x
end

-- Mean and the 95 % interval of the mean: 2,000 bootstrap samples of x.
function essay.bootstrap(x, seed)
  local t <const> = qkv.tensor(x)
  local pick <const> = qkv.randint({2000 * #x}, {high = #x, seed = seed})
  local means <const> = t:take{[0] = pick}:reshape(2000, #x):mean(1):sort()
  return {mean = essay.mean(x), low = means[49], high = means[1950], n = #x}
end

-- A share and its 95 % interval after Wilson (1927).
function essay.share(hits, n)
  local z <const> = 1.96
  local p <const>, denominator <const> = hits / n, 1 + z * z / n
  local middle <const> = (p + z * z / (2 * n)) / denominator
  local half <const> = z / denominator
    * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
  return {mean = p, low = middle - half, high = middle + half, n = n}
end

-- "0.41 [0.35, 0.47]"
function essay.show(e, form)
  form = form or "%.2f"
  return (form .. " [" .. form .. ", " .. form .. "]"):format(e.mean, e.low,
                                                              e.high)
end

-- Ranks of a tensor's elements, ties in their order.
local function ranks(t)
  local _, order = t:reshape(-1):sort()
  local _, rank = order:sort()
  return rank:to "f32"
end

-- Spearman's rho of two tensors of one shape, and p: how often the absolute
-- value is as large when the pairs are torn apart (999 random orders).
function essay.spearman(a, b, seed)
  local x <const>, y <const> = ranks(a), ranks(b)
  local rho <const> = qkv.correlation(x, y)
  local larger = 1
  for i = 1, 999 do
    local order <const> = essay.shuffled(#y, seed * 1000 + i)
    local torn <const> = qkv.correlation(x, y:take{[0] = order})
    if math.abs(torn) >= math.abs(rho) then larger = larger + 1 end
  end
  return {rho = rho, p = larger / 1000, n = #y}
end

-- Means of t where `inside` is 1 and where it is 0, and p: how often as many
-- elements chosen at random (999 times) are as far above the rest.
function essay.difference(t, inside, seed)
  local x <const>, mark <const> = t:reshape(-1), inside:reshape(-1):to "f32"
  local n <const> = mark:sum()
  local function means(y)
    local sum <const> = (y * mark):sum()
    return sum / n, (y:sum() - sum) / (#y - n)
  end
  local a <const>, b <const> = means(x)
  local larger = 1
  for i = 1, 999 do
    local c <const>, d <const> = means(
      x:take{[0] = essay.shuffled(#x, seed * 1000 + i)})
    if c - d >= a - b then larger = larger + 1 end
  end
  return {inside = a, outside = b, p = larger / 1000}
end

return essay

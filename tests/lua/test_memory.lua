-- test_memory.lua - what is held is found, named, and counted once
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

local function find(held, kind, name)
  for _, record in ipairs(held) do
    if record.kind == kind and (not name or record.name == name) then
      return record
    end
  end
  return nil
end

local m = qkv.open(srcdir .. "/data/tiny.gguf")
rawset(_G, "held_here", qkv.zeros(100, 100))
local held = qkv.memory()
check.equal(find(held, "tensor", "held_here").bytes, 40000, "a tensor")
check.yes(find(held, "model").bytes > 0, "a model")
check.equal(find(held, "run"), nil, "no run yet")

local r = m:run({1, 2, 3, 4}, {names = "resid_post"})
local c <const> = m.config
local stream = r "resid_post"           -- a view of what r keeps
rawset(_G, "stream_here", stream)
local record = find(qkv.memory(), "run")
check.equal(record.bytes, 4 * (c.n_layers * 4 * c.d_model     -- resid_post,
            + 4 * c.d_model + c.d_vocab), "a run: records, stream, logits")
local n = 0
for _, other in ipairs(qkv.memory()) do
  if other.kind == "tensor" then n = n + 1 end
end
check.equal(n, 1, "a view of a run is not counted again")
check.equal(stream:size "layer", c.n_layers, "the view lives")
rawset(_G, "shelf", {r = r})
check.equal(find(qkv.memory(), "run").name, "shelf.r", "the variable's name")
rawset(_G, "shelf", nil)
rawset(_G, "held_here", nil)
rawset(_G, "stream_here", nil)
r, stream = nil, nil  -- luacheck: ignore
check.equal(find(qkv.memory(), "run"), nil, "what nobody holds is gone")
check.yes(tostring(qkv.memory()):find "Lua's own values", "printed")

check.done()

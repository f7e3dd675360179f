-- test_hostile.lua - files that lie, questions that cannot be answered, disks
-- that are full: each is one error that says so, and the session goes on
--
-- Truth is data/tiny.gguf and the oracle gpt2_hub; each row changes one thing
-- in a copy. What the errors say is part of the test. (tests/c/test_hostile.c
-- asks the readers of files alone, byte by byte.)
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

local function read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

-- A new file: to cut an old one waits for the disk on some file systems.
local function write(path, bytes)
  os.remove(path)
  local f <close> = assert(io.open(path, "wb"))
  f:write(bytes)
end

local tiny <const> = read(srcdir .. "/data/tiny.gguf")
local m <const> = qkv.open(srcdir .. "/data/tiny.gguf")
local truth <const> = m:run({1, 2, 3}):top(3)

-- The session lives: the model that was open says what it said before.
local function alive(after)
  local now <const> = m:run({1, 2, 3}):top(3)
  for i = 1, 3 do
    check.equal(now[i].id, truth[i].id, "after " .. after)
    check.near(now[i].logit, truth[i].logit, 0, "after " .. after)
  end
end

-- fn raises one line, in which every one of the (plain) texts stands.
local function refused(fn, what, ...)
  local ok <const>, message = pcall(fn)
  message = tostring(message)
  check.yes(not ok, what .. " is refused")
  check.yes(not message:find "\n" and #message > 0, what .. ": one line")
  for _, text in ipairs{...} do
    check.yes(message:find(text, 1, true),
      ("%s: '%s' in '%s'"):format(what, text, message))
  end
end

---- GGUF: every field's place ----

local WIDTH <const> = {[0] = 1, 1, 2, 2, 4, 4, 4, 1, [10] = 8, [11] = 8,
                       [12] = 8}

-- place["key"] = {at =, format =} for numbers and texts; "name.dims.0",
-- ".type", ".offset" for tensors.
local function places_of(bytes)
  local place <const> = {version = {at = 5, format = "<I4"},
    tensors = {at = 9, format = "<I8"}, keys = {at = 17, format = "<I8"}}
  local n_tensors <const>, n_keys <const>, first <const> =
    string.unpack("<I8I8", bytes, 9)
  local at = first
  local function take(format)
    local value, after = string.unpack(format, bytes, at)
    at = after
    return value
  end
  local function skip(kind)
    if kind == 8 then take "<s8" else at = at + WIDTH[kind] end
  end
  for _ = 1, n_keys do
    local key <const>, kind <const> = take "<s8", take "<I4"
    place[key] = {at = at, format = kind == 8 and "<s8" or
      kind == 6 and "<f" or kind ~= 9 and "<I" .. WIDTH[kind]}
    if kind == 9 then
      local item <const> = take "<I4"
      place[key .. ".count"] = {at = at, format = "<I8"}
      for _ = 1, take "<I8" do skip(item) end
    else
      skip(kind)
    end
  end
  for _ = 1, n_tensors do
    place["name of " .. string.unpack("<s8", bytes, at)] = {at = at,
      format = "<s8"}
    local name <const> = take "<s8"
    for i = 0, take "<I4" - 1 do
      place[name .. ".dims." .. i] = {at = at, format = "<I8"}
      take "<I8"
    end
    place[name .. ".type"] = {at = at, format = "<I4"}
    place[name .. ".offset"] = {at = at + 4, format = "<I8"}
    at = at + 12
  end
  return place, at - 1
end

local place <const>, head <const> = places_of(tiny)

-- tiny with some fields changed: {["llama.block_count"] = 5}. A text keeps its
-- length.
local function changed(fields)
  local bytes = tiny
  for name, value in pairs(fields) do
    local p <const> = assert(place[name], name)
    local new <const> = string.pack(p.format, value)
    assert(p.format ~= "<s8"
      or #new == #string.pack("<s8", (string.unpack("<s8", bytes, p.at))))
    bytes = bytes:sub(1, p.at - 1) .. new .. bytes:sub(p.at + #new)
  end
  return bytes
end

local function open_gguf(bytes)
  write("hostile.gguf", bytes)
  return qkv.open "hostile.gguf"
end

check.equal(open_gguf(tiny):run({1, 2, 3}):top(1)[1].id, truth[1].id,
  "the copy is the model")

---- prefixes ----

-- How many prefixes open, of all up to `dense`, then of every `step`-th.
local function opening_prefixes(bytes, dense, step, open)
  local opened, n = 0, 0
  while n < #bytes do
    local ok <const>, message = pcall(open, bytes:sub(1, n))
    if ok or not tostring(message):find "hostile" then opened = opened + 1 end
    n = n + ((n < dense or n >= #bytes - 40) and 1
             or math.min(step, #bytes - 40 - n))
  end
  return opened
end

check.equal(opening_prefixes(tiny, head, 997, open_gguf), 0,
  "prefixes of a GGUF that open, or do not name it")

local hub <const> = srcdir .. "/tests/oracle/gpt2_hub"
local weights <const>, config <const> = read(hub .. "/model.safetensors"),
  read(hub .. "/config.json")
assert(os.execute "rm -rf hostile full && mkdir hostile full")

local function open_hub(tensors, text)
  if tensors then write("hostile/model.safetensors", tensors) end
  write("hostile/config.json", text or config)
  return qkv.open "hostile"
end

check.yes(open_hub(weights):run {1, 2, 3}, "the copy is a model")
check.equal(opening_prefixes(weights, 2600, 997, open_hub), 0,
  "prefixes of safetensors that open, or do not name it")
open_hub(weights)
check.equal(opening_prefixes(config:match "^(.*}).*$", 4096, 1,
  function(text) return open_hub(nil, text) end), 0,
  "prefixes of config.json that open, or do not name it")
alive "prefixes"

---- GGUF: fields ----

local huge <const> = math.maxinteger
for _, row in ipairs{
  {"the family", {["general.architecture"] = "zebra"}, "'zebra'", "llama"},
  {"the version", {version = 4}, "version 4"},
  {"no tensors", {tensors = 0}, "token_embd.weight"},
  {"tensors: many", {tensors = huge}, "9223372036854775807"},
  {"keys: many", {keys = huge}, "9223372036854775807"},
  {"keys: too few", {keys = 3}},
  {"tokens: many", {["tokenizer.ggml.tokens.count"] = huge}},
  {"an unknown type", {["blk.1.ffn_up.weight.type"] = 99},
   "blk.1.ffn_up.weight", "99"},
  {"a type that is not read", {["blk.1.ffn_up.weight.type"] = 16},
   "blk.1.ffn_up.weight", "iq2_xxs"},
  {"an offset beyond the end", {["blk.1.ffn_up.weight.offset"] = 1 << 40},
   "blk.1.ffn_up.weight"},
  {"an offset that wraps", {["blk.1.ffn_up.weight.offset"] = -32},
   "blk.1.ffn_up.weight"},
  {"an offset askew", {["blk.1.ffn_up.weight.offset"] = 33},
   "blk.1.ffn_up.weight", "33"},
  {"overlapping tensors", {["blk.1.ffn_up.weight.offset"] =
    string.unpack("<I8", tiny, place["blk.1.ffn_down.weight.offset"].at)},
   "blk.1.ffn_up.weight", "inside tensor blk.1.ffn_down.weight"},
  {"a size of 2^63 - 1", {["blk.1.ffn_up.weight.dims.1"] = huge},
   "blk.1.ffn_up.weight"},
  {"a size below 0", {["blk.1.ffn_up.weight.dims.1"] = -1},
   "blk.1.ffn_up.weight"},
  {"a missing tensor", {["name of blk.1.ffn_up.weight"] =
    "blk.1.ffn_pu.weight"}, "blk.1.ffn_up.weight"},
  {"a name twice", {["name of blk.1.ffn_up.weight"] =
    "blk.0.ffn_up.weight"}, "blk.0.ffn_up.weight"},
  {"a wrong shape", {["blk.1.ffn_up.weight.dims.1"] = 127},
   "blk.1.ffn_up.weight", "[127, 64]", "[128, 64]"},
  {"a wrong width", {["llama.embedding_length"] = 128},
   "token_embd.weight", "[384, 64]", "128"},
  {"no heads", {["llama.attention.head_count"] = 0}, "head_count", "0"},
  {"heads that do not divide", {["llama.attention.head_count"] = 3}, "3"},
  {"more kv heads", {["llama.attention.head_count_kv"] = 3}, "3"},
  {"no layers", {["llama.block_count"] = 0}, "0"},
  {"a layer too many", {["llama.block_count"] = 5}, "blk.4."},
  {"layers: many", {["llama.block_count"] = 0xffffffff}, "4294967295"},
  {"no context", {["llama.context_length"] = 0}, "0"},
  {"an odd rotary", {["llama.rope.dimension_count"] = 15}, "15"},
  {"a large rotary", {["llama.rope.dimension_count"] = 18}, "18"},
  {"an epsilon that is no number",
   {["llama.attention.layer_norm_rms_epsilon"] = 0/0}, "epsilon"},
  {"a base below 0", {["llama.rope.freq_base"] = -1}, "-1"},
} do
  refused(function() open_gguf(changed(row[2])) end, row[1],
    table.unpack(row, 3))
end

-- Each number of the header at each extreme: it may open (the alignment of 1 is
-- as good as 32 here), but what opens runs or says why not.
local fields <const> = {}
for name in pairs(place) do fields[#fields + 1] = name end
table.sort(fields)
local bad = {}
for _, name in ipairs(fields) do
  local p <const> = place[name]
  local bits <const> = p.format and tonumber(p.format:match "^<I(%d)$")
  for _, value in ipairs{0, 1, 2^31 - 1, 2^32 - 1, huge, -1} do
    if bits then
      local cut <const> = bits == 8 and math.tointeger(value)
        or math.tointeger(value) & ((1 << bits * 8) - 1)
      local ok, opened = pcall(open_gguf, changed{[name] = cut})
      local said
      if ok then
        ok, said = pcall(opened.run, opened, {1, 2, 3})
      else
        said = opened
      end
      if not ok and (tostring(said):find "\n" or #tostring(said) == 0) then
        bad[#bad + 1] = name .. "=" .. cut
      end
    end
  end
end
check.equal(bad, {}, "extremes without a line that says why")
alive "fields"

---- safetensors and config.json ----

local header <const> = string.unpack("<s8", weights)
local data <const> = weights:sub(9 + #header)

-- The file with a text of its header replaced, once.
local function with(old, new)
  local from <const>, to <const> = header:find(old, 1, true)
  return string.pack("<s8", header:sub(1, from - 1) .. new
                            .. header:sub(to + 1)) .. data
end

local q1 <const> = '"h.1.attn.c_attn.weight":'
local function tensor_with(old, new)
  local whole <const> = q1 .. header:match(q1:gsub("%p", "%%%0") .. "(%b{})")
  local from <const>, to <const> = whole:find(old, 1, true)
  return with(whole, whole:sub(1, from - 1) .. new .. whole:sub(to + 1))
end
local offsets <const> = header:match(q1:gsub("%p", "%%%0")
                                     .. '.-("data_offsets":%b[])')

for _, row in ipairs{
  {"a header of 2^63 - 1", string.pack("<I8", huge) .. weights:sub(9),
   "9223372036854775807"},
  {"a header of -1", string.pack("<i8", -1) .. weights:sub(9)},
  {"no header", string.pack("<I8", 0) .. data},
  {"a header that is no object", string.pack("<s8", "[1, 2]") .. data,
   "an object was expected"},
  {"a header cut", string.pack("<I8", #header - 200) .. weights:sub(9)},
  {"an unknown type", tensor_with('"F32"', '"F13"'),
   "h.1.attn.c_attn.weight", "F13"},
  {"a type that is not read", tensor_with('"F32"', '"C64"'),
   "h.1.attn.c_attn.weight", "C64"},
  {"offsets beyond the end", tensor_with(offsets,
   '"data_offsets":[0,9000000]'), "h.1.attn.c_attn.weight"},
  {"offsets that are huge", tensor_with(offsets,
   '"data_offsets":[9223372036854775000,9223372036854775807]'),
   "h.1.attn.c_attn.weight"},
  {"offsets that fall", tensor_with(offsets, '"data_offsets":[8,4]'),
   "h.1.attn.c_attn.weight"},
  {"offsets below 0", tensor_with(offsets, '"data_offsets":[-8,4]')},
  {"overlapping tensors", tensor_with(offsets,
   '"data_offsets":[2688,14976]'), "h.1.attn.c_attn.weight",
   "h.0.attn.c_attn.weight"},
  {"a shape that is larger", tensor_with("[32,96]", "[32,97]"),
   "h.1.attn.c_attn.weight", "12416 bytes"},
  {"a shape that overflows", tensor_with("[32,96]",
   "[4294967296,4294967296]"), "h.1.attn.c_attn.weight"},
  {"a wrong shape", tensor_with("[32,96]", "[96,32]"),
   "h.1.attn.c_attn.weight", "[96, 32]", "96"},
  {"a missing tensor", with(q1, '"h.1.attn.c_nttn.weight":'),
   "h.1.attn.c_attn.weight"},
  {"a name twice", with(q1, '"h.0.attn.c_attn.weight":'),
   "h.0.attn.c_attn.weight"},
} do
  refused(function() open_hub(row[2]) end, row[1], table.unpack(row, 3))
end

open_hub(weights)
for _, row in ipairs{
  {"the family", '"gpt2"', '"zebra"', "'zebra'"},
  {"no family", '"model_type"', '"model_tipe"', "model_type"},
  {"a family that is a number", '"model_type": "gpt2"', '"model_type": 2',
   "model_type"},
  {"layers: many", '"n_layer": 2', '"n_layer": 1000000000000',
   "1000000000000"},
  {"layers: a text", '"n_layer": 2', '"n_layer": "two"', "n_layer"},
  {"layers: a fraction", '"n_layer": 2', '"n_layer": 2.5', "n_layer", "2.5"},
  {"a layer too many", '"n_layer": 2', '"n_layer": 3', "h.2."},
  {"no heads", '"n_head": 2', '"n_head": 0', "n_head", "0"},
  {"heads that do not divide", '"n_head": 2', '"n_head": 5', "5", "32"},
  {"a wrong width", '"n_embd": 32', '"n_embd": 64', "wte.weight",
   "[288, 32]", "64"},
  {"a context below 0", '"n_positions": 24', '"n_positions": -24', "-24"},
  {"a context too large", '"n_positions": 24', '"n_positions": 25',
   "wpe.weight", "[24, 32]", "25"},
  {"an unknown activation", '"gelu_new"', '"zap"', "'zap'"},
  {"an epsilon below 0", "1e-05", "-1", "epsilon -1"},
  {"depth", '"summary_activation": null',
   '"x": ' .. ("["):rep(1000) .. ("]"):rep(1000), "128"},
} do
  local from <const>, to <const> = config:find(row[2], 1, true)
  refused(function()
    open_hub(nil, config:sub(1, from - 1) .. row[3] .. config:sub(to + 1))
  end, row[1], table.unpack(row, 4))
end
os.remove "hostile/config.json"
refused(function() qkv.open "hostile" end, "a folder without a config",
  "hostile has no config.json")
write("hostile/config.json", config)
os.remove "hostile/model.safetensors"
refused(function() qkv.open "hostile" end, "a folder without weights",
  "hostile has no model.safetensors")
write("hostile/pytorch_model.bin", "x")
refused(function() qkv.open "hostile" end, "a pickle", "pickle",
  "model.safetensors")
refused(function() qkv.open "nowhere.gguf" end, "no file", "'nowhere.gguf'")
write("hostile.gguf", "")
refused(function() qkv.open "hostile.gguf" end, "an empty file",
  "hostile.gguf")
alive "folders"

---- NaN in the weights: found when asked for ----

local function byte_of(name)    -- where a tensor's data begin, from 1
  local base <const> = (head + 31) // 32 * 32
  return base + 1 + string.unpack("<I8", tiny, place[name .. ".offset"].at)
end

local function patched(at, new)
  return tiny:sub(1, at - 1) .. new .. tiny:sub(at + #new)
end

for _, row in ipairs{
  {"blk.2.attn_norm.weight", 4 * 7, string.pack("<f", 0/0), "nan"},
  {"output_norm.weight", 4 * 63, string.pack("<f", 1/0), "inf"},
  {"blk.3.ffn_down.weight", 34 * 5, "\0\x7e", "nan"},   -- a block's scale
} do
  local broken <const> = open_gguf(patched(byte_of(row[1]) + row[2], row[3]))
  refused(function() broken:check() end, "NaN in " .. row[1], row[1])
  check.yes(broken:run {1, 2}, "it runs all the same")
end
check.yes(m:check(), "the model itself has none")

---- larger than memory ----

-- One tensor more, of 2^42 bytes, in a file with a hole.
local function larger()
  local infos <const> = place["name of token_embd.weight"].at
  local extra <const> = string.pack("<s8I4I8I8I4I8", "extra", 2, 1 << 20,
    1 << 20, 0, (#tiny - (head + 31) // 32 * 32 + 31) // 32 * 32)
  local top <const> = tiny:sub(1, 8)
    .. string.pack("<I8", string.unpack("<I8", tiny, 9) + 1)
    .. tiny:sub(17, infos - 1) .. extra .. tiny:sub(infos, head)
  local f <close> = assert(io.open("hostile.gguf", "wb"))
  assert(f:write(top, ("\0"):rep(-#top % 32),
    tiny:sub((head + 31) // 32 * 32 + 1)))
  return f:seek("cur", (1 << 42) + 31) and f:write "\0" and f:flush()
end
if larger() then
  refused(function() qkv.open "hostile.gguf" end, "larger than memory",
    "hostile.gguf holds 4398.0 GB of weights", "large = true")
  local large <const> = qkv.open("hostile.gguf", {large = true})
  check.equal(large:run({1, 2, 3}):top(1)[1].id, truth[1].id,
    "opened all the same")
else
  check.skip "this file system has no room for a file with a hole of 4 TB"
end
os.remove "hostile.gguf"
alive "a large model"

---- questions ----

local r <const> = m:run {1, 2, 3}
local long <const> = {}
for i = 1, 513 do long[i] = i % 300 end

local function edited(edit)
  return function() m:run({1, 2}, {edits = {edit}}) end
end
for _, row in ipairs{
  {"a prompt too long", function() m:run(long) end, "513", "512"},
  {"generation too long", function() m:generate({1}, {n = 512}) end, "513",
   "512"},
  {"an empty prompt", function() m:run "" end, "sequence 0 is empty"},
  {"no ids", function() m:run {} end, "sequence 0 is empty"},
  {"an empty one in a batch", function() m:run {"a", ""} end,
   "sequence 1 is empty"},
  {"nothing to go on from", function() m:generate "" end,
   "sequence 0 is empty"},
  {"an id too large", function() m:run {1, 384} end,
   "token id 384 at position 1: ids run 0..383"},
  {"an id below 0", function() m:run {-1} end,
   "token id -1 at position 0: ids run 0..383"},
  {"an id of 2^40", function() m:run {1 << 40} end, "1099511627776"},
  {"half an id", function() m:run {1.5} end, "1.5"},
  {"a text among ids", function() m:run {1, "a"} end, "integers expected"},
  {"no input", function() m:run(nil) end, "input is a nil"},
  {"a token that is none", function() r:logit(384) end, "384", "0..383"},
  {"a text of many tokens", function() r:logit " qq" end, "one was expected"},
  {"a position too far", function() r:top(3, 5) end, "position 5 of 3"},
  {"more than there are", function() r:top(385) end, "385", "384"},
  {"ids without text", function() m:text {999} end, "999", "0..383"},
  {"a site to keep", function() m:run({1}, {names = "patern"}) end,
   "'patern'", "did you mean 'pattern'?"},
  {"a full name to keep",
   function() m:run({1}, {names = {"blocks.*.attn.hook_patern"}}) end,
   "did you mean", "hook_pattern"},
  {"a site to read", function() return r("resid_prr", 0) end,
   "did you mean 'resid_pre'?"},
  {"a layer to read", function() return r("pattern", 4) end, "layer 4 of 4"},
  {"a site to edit", edited{site = "zz", op = "zero"}, "no site matches 'zz'"},
  {"a site to hook", function()
     m:run({1}, {hooks = {{site = "reid_pre", fn = print}}})
   end, "did you mean 'resid_pre'?"},
  {"an option", function() m:run({1}, {nams = "pattern"}) end,
   "unknown option 'nams'; did you mean 'names'?"},
  {"an option of an edit", edited{site = "z", lyer = 1, op = "zero"},
   "unknown option 'lyer'; did you mean 'layer'?"},
  {"an option of hidden", function() m:hidden({"a"}, {layr = 1}) end,
   "unknown option 'layr'; did you mean 'layer'?"},
  {"an option of open", function() qkv.open("tiny", {larg = true}) end,
   "unknown option 'larg'; did you mean 'large'?"},
  {"an option of generate", function() m:generate("a", {temprature = 1}) end,
   "unknown option 'temprature'; did you mean 'temperature'?"},
  {"a layer of an edit", edited{site = "z", layer = 4, op = "zero"},
   "layer 4 of 4"},
  {"a head of an edit", edited{site = "z", head = 4, op = "zero"},
   "head 4 of 4"},
  {"a position of an edit", edited{site = "z", pos = 2, op = "zero"},
   "pos 2 of 2"},
  {"what an edit does", edited{site = "z", op = "zap"}, "'zap'",
   "set, add, scale, zero"},
  {"a shape of an edit", edited{site = "z", value = qkv.ones(3)}, "3", "16"},
  {"a layer of hidden", function() m:hidden({"a"}, {layer = 4}) end,
   "layer 4 of 4"},
  {"where to stop", function() m:run({1}, {stop_at = 5}) end, "5", "0 to 4"},
  {"where to start", function()
     m:run({1}, {start = {layer = 9, resid = qkv.zeros(1, 64)}})
   end, "layer 9 of 4"},
  {"a start from nothing", function() m:run({1}, {start = {layer = 1}}) end,
   "resid of sequence 0 is a nil", "[pos, d_model]"},
  {"a start of a wrong shape", function()
     m:run({1}, {start = {layer = 1, resid = qkv.zeros(1, 63)}})
   end, "[1, 63]", "[pos 1, d_model 64]"},
  {"a temperature", function() m:generate("a", {temperature = -1}) end, "-1"},
  {"a hook that raises", function()
     m:run({1}, {hooks = {{site = "z", layer = 1,
                           fn = function() error "my own" end}}})
   end, "my own"},
  {"a field", function() return m.confg end, "did you mean 'config'?"},
  {"a weight", function() m:weight "blk.0.attn_r.weight" end,
   "no weight 'blk.0.attn_r.weight'"},
} do
  refused(row[2], row[1], table.unpack(row, 3))
end
alive "questions"

---- saving where there is no room, or no leave ----

write("child.lua", [[
local qkv <const> = require "qkv"
local big <const> = qkv.randn({300, 300}, {seed = 1})
local plot <const> = qkv.plot.heatmap(big)
for _, kind in ipairs {"npy", "npz", "safetensors", "csv", "tsv", "gp"} do
  local path <const> = "full/a." .. kind
  local old <const> = io.open(path, "w")
  if old then old:write "old" old:close() end
  local ok <const>, message = pcall(function()
    if kind == "gp" then plot:save(path) else big:save(path) end
  end)
  local file <const> = io.open(path)
  print(kind, ok, file and file:read "a", message)
end
print("alive", (big * 0):sum())
for line in io.popen "ls -A full":lines() do print("left", line) end
]])
local program <const> = os.getenv "QKV" or "qkv"

-- How the child is started; what the system says; is there an old file?
for _, row in ipairs{
  {"a limit of file sizes", "trap '' XFSZ; ulimit -f 8; %s",
   "File too large", true},
  {"a full disk", "unshare -rm sh -c 'mount -t tmpfs -o size=64k tmpfs full"
   .. " && %s'", "No space left on device", true},
  {"a folder that is read-only", "unshare -rm sh -c 'mount -t tmpfs -o ro"
   .. " tmpfs full && %s'", "Read-only file system", false},
} do
  local what <const>, how <const>, reason <const>, old <const> =
    table.unpack(row)
  local child <close> = io.popen(how:format(program .. " child.lua 2>&1"))
  local said <const> = child:read "a"
  if said:find "alive" then
    for _, kind in ipairs {"npy", "npz", "safetensors", "csv", "tsv", "gp"} do
      local line <const> = said:match("%f[%w]" .. kind .. "\t[^\n]*")
      check.yes(line:find("cannot write full/a." .. kind .. ": " .. reason, 1,
        true), what .. ": " .. line)
      check.yes(line:find("\tfalse\t" .. (old and "old" or "nil") .. "\t", 1,
        true), what .. ", what was there stays: " .. line)
    end
    check.yes(said:find "alive\t0", what .. ": the session lives")
    local _, left <const> = said:gsub("left\t", "")
    check.equal(left, old and 6 or 0, what .. ": no partial file")
  else
    check.skip(("%s: not to be had here: %s"):format(what,
      said:match "[^\n]*"))
  end
end
for _, kind in ipairs {"npy", "safetensors", "csv"} do
  refused(function() qkv.ones(2):save("nowhere/a." .. kind) end,
    "a folder that is not there",
    "cannot write nowhere/a." .. kind .. ": No such file or directory")
end
alive "saving"
check.done()

-- test_help.lua - every public function is documented, and its examples run
--
-- A document has a signature that names its function, a text, and lines that
-- begin with "> ": Lua expressions or statements; a comparison must be true.
-- In examples `qkv` is there and `m` is the tiny model that ships.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"
local docs <const> = debug.getregistry()["qkv.docs"]
local m <const> = qkv.open(srcdir .. "/data/tiny.gguf")
local scope <const> = setmetatable({qkv = qkv, m = m}, {__index = _G})

local names = {}
for name, record in pairs(docs) do
  if type(name) == "string" and type(record) == "table" then
    names[#names + 1] = name
  end
end
table.sort(names)
check.yes(#names > 150, #names .. " documents")

local function run_example(name, line)
  local f <const> = load("return " .. line, "=example", "t", scope)
                    or load(line, "=example", "t", scope)
  if not f then return check.yes(false, name .. ": does not parse: " .. line) end
  local ok <const>, value = pcall(f)
  check.yes(ok, name .. ": " .. line .. ": " .. tostring(value))
  if ok and type(value) == "boolean" then
    check.yes(value, name .. ": is not true: " .. line)
  end
end

for _, name in ipairs(names) do
  local d <const> = docs[name]
  check.yes(#d.text > 10, name .. " has a text")
  if d.signature ~= "" then
    local last <const> = name:match "[%w_]+$"
    check.yes(d.signature:find(last, 1, true), name .. ": " .. d.signature)
  end
  for line in d.text:gmatch "\n> ([^\n]+)" do run_example(name, line) end
end

-- What users can reach is documented.
for name, value in pairs(qkv) do
  if type(value) == "function" then
    check.yes(docs[value], "qkv." .. name .. " is documented")
  end
end
for _, class in ipairs {"tensor", "model", "run", "tokenizer"} do
  for name in pairs(debug.getregistry()["qkv." .. class].methods) do
    check.yes(docs[class .. "." .. name], class .. "." .. name)
  end
end

-- Names as signatures write them are found without such a value.
for _, row in ipairs {{"r:top", "^r:top%("}, {"m.config", "^m%.config"},
                      {"r", "^r:\n.*r:surprisal"}, {"topk", "^t:topk%("},
                      {"xq", "^nothing is called 'xq'[^\n]*$"}} do
  local page <const> = qkv.help_text(row[1])
  check.yes(page:find(row[2]), "help of " .. row[1] .. ": " .. page)
end
check.done()

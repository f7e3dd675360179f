-- test_readme.lua - every line of the README's tour runs, on the real model
--
-- Line by line, as at the prompt: an expression or a statement. Without
-- SmolLM2 it is skipped.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"

local ok <const>, m <const> = pcall(qkv.open, "smollm2")
if not ok then
  check.skip "SmolLM2 is not there: scripts/tools/fetch smollm2"
  check.done()
  os.exit(77)
end
local has_gnuplot <const> = os.execute "command -v gnuplot >/dev/null 2>&1"
local file <const> = assert(io.open(srcdir .. "/README.md"))
local block <const> = file:read "a":match "```lua\n(.-)```"
file:close()
local scope <const> = setmetatable({qkv = qkv, m = m}, {__index = _G})
for line in block:gmatch "[^\n]+" do
  if not line:find "^%-%-" and (has_gnuplot or not line:find ":save") then
    local f <const> = load("return " .. line, "=README", "t", scope)
                      or load(line, "=README", "t", scope)
    check.yes(f, "parses: " .. line)
    if f then
      local went <const>, message <const> = pcall(f)
      check.yes(went, line .. ": " .. tostring(message))
    end
  end
end

-- The tour, and the numbers that it claims.
arg = {[0] = "tour.lua", "smollm2"}
local out <const> = dofile(srcdir .. "/scripts/examples/tour.lua")
check.equal(out.next, " Mary", "the next token")
check.near(out.prob, 0.923, 0.005, "its probability")
check.equal(out.lens, " Mary", "the lens ends in it")
check.yes(out.induction.value > 0.85, "the best induction head")
check.equal({out.induction.layer, out.induction.head}, {18, 6}, "is L18H6")
check.yes(out.previous.value > 0.8, "the best previous-token head")
check.near(out.alike, 0.62, 0.01, "king and queen")
check.near(out.unlike, 0.18, 0.01, "king and peach")
check.yes(out.text:find "^, the city of Nova Haven", "what it writes")
check.done()

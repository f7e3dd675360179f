-- check.lua - the checks that Lua tests make, counted
--
--   local check = dofile((os.getenv "srcdir" or ".") .. "/tests/lua/check.lua")
--
-- A check that fails prints one line and the test goes on; check.done() ends
-- it. Comparisons fail on NaN.
local check = {}
local passed, failed, skipped = 0, 0, 0

local function count(good, what, ...)
  if good then
    passed = passed + 1
    return
  end
  failed = failed + 1
  local at = debug.getinfo(3, "Sl")
  local message = string.format(...)
  if #message > 400 then message = message:sub(1, 400) .. " ..." end
  print(("%s:%d: %s: %s"):format(at.short_src, at.currentline,
    what or "check", message))
end

local function show(x)
  if type(x) == "string" then return ("%q"):format(x) end
  if type(x) ~= "table" or (getmetatable(x) or {}).__tostring then
    return tostring(x)
  end
  local parts = {}
  for i, v in ipairs(x) do parts[i] = show(v) end
  for k, v in pairs(x) do
    if math.type(k) ~= "integer" or k < 1 or k > #x then
      parts[#parts + 1] = ("%s=%s"):format(tostring(k), show(v))
    end
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end

-- Numbers of a tensor, a table or a number, in a row; shapes must agree.
local function is_near(got, want, tol)
  if type(got) == "table" and type(want) == "table" then
    if #got ~= #want then return false end
    for i = 1, #want do
      if not is_near(got[i], want[i], tol) then return false end
    end
    return true
  end
  if type(got) ~= "number" or type(want) ~= "number" then return false end
  if want ~= want then return got ~= got end    -- a NaN that is expected
  if got == want then return true end           -- infinities
  return math.abs(got - want) <= tol
end

local function plain(x)
  return type(x) == "userdata" and x:table() or x
end

-- Equal: tables element by element.
function check.equal(got, want, what)
  count(same(got, want), what, "%s expected, got %s", show(want), show(got))
end

-- Tensors, tables of numbers or numbers of one shape, within tol. A NaN that
-- is expected must be there.
function check.near(got, want, tol, what)
  got, want = plain(got), plain(want)
  count(is_near(got, want, tol), what, "%s expected within %g, got %s",
    show(want), tol, show(got))
end

-- fn() raises an error in which the Lua pattern is found.
function check.error(fn, pattern, what)
  local ok, message = pcall(fn)
  if ok then
    count(false, what, "no error, '%s' expected", pattern)
  else
    message = tostring(message)
    count(message:find(pattern), what, "error '%s' expected, got '%s'",
      pattern, message)
  end
end

function check.yes(cond, what)
  count(cond, what, "true expected, got %s", show(cond))
end

-- Something cannot be tested here; the reason is shown.
function check.skip(reason)
  skipped = skipped + 1
  print("skip: " .. reason)
end

function check.done()
  print(("%d passed, %d failed, %d skipped"):format(passed, failed, skipped))
  if failed > 0 or passed + skipped == 0 then os.exit(1, true) end
  os.exit(passed > 0 and 0 or 77, true)
end

return check

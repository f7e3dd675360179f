--[[ options.lua - what every half asks of its callers

Called with (qkv, doc, class, half); gives half.raise, half.check_options and
their kin to the halves after it.
]]
local _, _, _, half <const> = ...
local P <const> = half.plot

-- "qkv.run" of a run, "number" of a number.
function half.class_of(x)
  local mt = type(x) == "userdata" and getmetatable(x)
  return type(mt) == "table" and mt.__name or type(x)
end

-- An error at the line of whoever called into the halves.
function half.raise(form, ...)
  local message = select("#", ...) > 0 and form:format(...) or form
  local level = 2
  while true do
    local info = debug.getinfo(level, "S")
    if not info or not (info.source:find "^=qkv/" or info.what == "C") then
      break
    end
    level = level + 1
  end
  error(message, level)
end
local raise <const> = half.raise

-- A copy of a caller's options, to be filled up; {} for none.
function half.given(options)
  local given = {}
  for name, value in pairs(options or {}) do given[name] = value end
  return given
end

-- The options of function fn, {} for none; each name must stand in one of the
-- lists.
function half.check_options(fn, options, ...)
  if options == nil then return {} end
  if type(options) ~= "table" then
    raise("%s: options go in a table, got a %s", fn, type(options))
  end
  local names, known = {}, {}
  for _, list in ipairs {...} do
    for _, name in ipairs(list) do
      names[#names + 1], known[name] = name, true
    end
  end
  for key in pairs(options) do
    if type(key) ~= "string" then
      raise("%s: options are named, {%s = ...}; got [%s]", fn, names[1],
            tostring(key))
    elseif not known[key] then
      local near = P.nearest(key, names)
      raise("%s: unknown option '%s'; %s", fn, P.spell(key),
            near and "did you mean '" .. near .. "'?"
            or "there are: " .. table.concat(names, ", "))
    end
  end
  return options
end

--[[ memory.lua - what is held, and by whom

Called with (qkv, doc, class, half).
]]
local qkv <const>, doc <const>, _, half <const> = ...

local meta <const> = {__name = "qkv.memory"}

-- Variables that hold an object: a global's name, or "name.field".
local function names_of()
  local names = {}
  local function add(object, name)
    if type(object) == "userdata" and not names[object] then
      names[object] = name
    end
  end
  for name, value in next, _G do
    if type(name) == "string" then
      add(value, name)
      if type(value) == "table" and value ~= _G and value ~= package.loaded then
        for field, inner in next, value do
          add(inner, ("%s.%s"):format(name, tostring(field)))
        end
      end
    end
  end
  return names
end

-- Bytes of this process's pages: its own, and of files that are mapped.
local function resident()
  local file <close> = io.open "/proc/self/status"
  local own, mapped
  for line in file and file:lines() or function() end do
    own = own or line:match "^RssAnon:%s+(%d+)"
    mapped = mapped or line:match "^RssFile:%s+(%d+)"
  end
  return own and own * 1024, mapped and mapped * 1024
end

qkv.memory = doc("qkv.memory", "qkv.memory() -> table",
  "What is held, and by whom: a list of {name=, kind=, bytes=} of models (as "
  .. "stored in their files, which are mapped), runs, and tensors that a "
  .. "variable holds, largest first; name is the variable. Also rest (of the "
  .. "core: other tensors, tokenizers, scratch), lua, own and mapped (pages of "
  .. "this process in memory). `:mem` prints it.\n> qkv.memory().lua > 0",
  function()
    collectgarbage()
    local names <const> = names_of()
    local list, core = half.memory.live(names)
    local held = setmetatable({}, meta)
    for _, record in ipairs(list) do
      if record.kind ~= "model" then core = core - record.bytes end
      held[#held + 1] = {name = names[record.object] or "", kind = record.kind,
                         bytes = record.bytes,
                         text = tostring(record.object)}
    end
    table.sort(held, function(a, b)
      if a.bytes ~= b.bytes then return a.bytes > b.bytes end
      return a.name < b.name
    end)
    held.rest, held.lua = core, math.floor(1024 * collectgarbage "count")
    held.own, held.mapped = resident()
    return held
  end)

local SHOWN <const> = 12

meta.__tostring = function(held)
  local lines = {}
  local function line(name, bytes, text)
    lines[#lines + 1] = ("%-10s %9.1f MB  %s"):format(name, bytes / 1e6, text)
  end
  local n, bytes = 0, 0
  for i, record in ipairs(held) do
    if i <= SHOWN then
      local text = record.text:gsub("\n.*", "")
      if utf8.len(text) and utf8.len(text) > 52 then
        text = text:sub(1, utf8.offset(text, 52) - 1) .. "…"
      end
      line(record.name ~= "" and record.name or "(unnamed)", record.bytes,
           text)
    else
      n, bytes = n + 1, bytes + record.bytes
    end
  end
  if n > 0 then line("", bytes, ("%d more"):format(n)) end
  line("", held.rest, "other tensors, tokenizers, scratch")
  line("", held.lua, "Lua's own values")
  if held.own then
    line("", held.own + held.mapped, ("in memory: %.1f MB of this process, "
      .. "%.1f MB of mapped files"):format(held.own / 1e6, held.mapped / 1e6))
  end
  return table.concat(lines, "\n")
end

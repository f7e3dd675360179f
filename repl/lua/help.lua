-- help.lua - help(x): what is written about functions, classes and topics
--
-- Every page comes from the records that stand beside the functions
-- (repl/bind/bind.h): {name=, signature=, text=}. A topic is a record without
-- a signature.
local qkv, doc, _, half = ...
local docs, distance = half.docs, half.distance

-- All records that `keep` wants, by name.
local function records(keep)
  local list = {}
  for name, record in pairs(docs) do
    if type(name) == "string" and keep(record) then list[#list + 1] = record end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- The text without its examples, in one line; its first sentence.
local function prose(record)
  return (("\n" .. record.text):gsub("\n> [^\n]*", ""):gsub("%s+", " ")
    :gsub("^ ", ""))
end

local function first_sentence(record)
  local text = prose(record)
  return text:match("^.-[.;:]%f[%s%z]") or text
end

-- The first n characters of a text.
local function cut(text, n)
  if (utf8.len(text) or 0) <= n then return text end
  return text:sub(1, utf8.offset(text, n) - 1) .. "…"
end

-- "  signature  first sentence" in 80 columns; a long signature takes a line
-- of its own.
local function line_of(record, width)
  local head = record.signature ~= "" and record.signature or record.name
  local text = first_sentence(record):gsub("[.;:]$", "")
  if utf8.len(head) > width then
    return "  " .. head .. "\n      " .. cut(text, 72)
  end
  return "  " .. head .. (" "):rep(width - utf8.len(head)) .. "  "
    .. cut(text, 75 - width)
end

local function list_of(title, list)
  local lines = {title}
  local width = 0
  for _, r in ipairs(list) do
    local n = utf8.len(r.signature ~= "" and r.signature or r.name)
    if n <= 34 and n > width then width = n end
  end
  for _, r in ipairs(list) do lines[#lines + 1] = line_of(r, width) end
  return table.concat(lines, "\n")
end

local function page_of(record)
  if record.signature == "" then return record.text end
  return record.signature .. "\n  " .. record.text:gsub("\n", "\n  ")
end

local function topics()
  return records(function(r) return r.signature == "" end)
end

-- Everything that is written about "tensor" or "qkv.plot"; nil if nothing.
local function group_page(group)
  local list = records(function(r)
    return r.signature ~= "" and r.name:match "^(.*)%." == group
  end)
  if #list == 0 then return nil end
  return list_of(group .. ":", list)
end

local function pages_of(list)
  local pages = {}
  for i, record in ipairs(list) do pages[i] = page_of(record) end
  return table.concat(pages, "\n\n")
end

-- What signatures write so: the page of "r:top" or "m.config"; for "r", all
-- that is written of an r. nil if nothing.
local function written_page(name)
  local wanted = name:gsub(":", ".")
  local function found(pattern)
    return records(function(r)
      local head = r.signature:match "^[%w_.:]+"
      return head and head:gsub(":", "."):match(pattern) == wanted
    end)
  end
  local list = found "^.*$"
  if #list > 0 then return pages_of(list) end
  list = found "^(.*)%."
  return #list > 0 and list_of(name .. ":", list) or nil
end

-- Records whose last name is near to a word, the nearest first.
local function near(word)
  local most = math.max(1, #word // 3)
  local found = {}
  for _, record in ipairs(records(function() return true end)) do
    local last = record.name:match "[^.]*$"
    local d = math.min(distance(word:lower(), last:lower()),
      distance(word:lower(), record.name:lower()))
    if d <= most then found[#found + 1] = {d = d, name = record.name} end
  end
  table.sort(found, function(a, b)
    return a.d < b.d or a.d == b.d and a.name < b.name
  end)
  return found
end

-- Records that speak of a word.
local function about(word)
  word = word:lower()
  return records(function(r)
    return (r.name .. "\n" .. prose(r)):lower():find(word, 1, true) ~= nil
  end)
end

-- Of a name: its record, all of that last name, a group, what signatures write
-- so, or what is like it.
local function name_page(name)
  if docs[name] then return page_of(docs[name]) end
  local same = records(function(r) return r.name:match "[^.]*$" == name end)
  if #same > 0 then return pages_of(same) end
  local page = group_page(name) or written_page(name)
  if page then return page end
  local parts = {("nothing is called '%s'"):format(name)}
  local guesses = near(name)
  if #guesses > 0 then
    local names = {}
    for i = 1, math.min(#guesses, 5) do names[i] = guesses[i].name end
    parts[1] = parts[1] .. "; near: " .. table.concat(names, ", ")
  end
  local mentions = #name < 3 and {} or about(name)  -- few letters are anywhere
  if #mentions > 0 then
    parts[2] = list_of(("about '%s':"):format(name), mentions)
  end
  return table.concat(parts, "\n\n")
end

local function overview()
  return table.concat({
    "help(x) tells about x: a function (help(qkv.zeros)), a value (help(m)),",
    "a name (help \"topk\"), a topic, or any word to search for.",
    "",
    list_of("topics:", topics()),
    "",
    group_page "qkv",
  }, "\n")
end

-- Of any value.
local function text_of(...)
  if select("#", ...) == 0 then return overview() end
  local x = ...
  if type(x) == "string" then return name_page(x) end
  local record = (type(x) == "function" or type(x) == "table") and docs[x]
  if type(record) == "table" then return page_of(record) end
  if type(record) == "string" then return group_page(record) end
  local metatable = debug.getmetatable(x)
  local class = type(metatable) == "table" and rawget(metatable, "__name")
  class = type(class) == "string" and class:match "^qkv%.(.*)"
  local page = class and group_page(class)
  if page then return tostring(x) .. "\n\n" .. page end
  return ("nothing is written about this %s"):format(type(x))
end

qkv.help_text = doc("qkv.help_text", "qkv.help_text([x]) -> string",
[[The page that qkv.help prints.
> #qkv.help_text "tensor.sum" > 20]], text_of)

qkv.help = doc("qkv.help", "qkv.help([x])",
[[Print what is written about a function, a value, a name, a topic such as
"indices", or any word.
> qkv.help(qkv.zeros)
> qkv.help "indices"]],
function(...) print(text_of(...)) end)

qkv.docs = doc("qkv.docs", "qkv.docs([prefix]) -> list of {name=, signature=, text=}",
[[All that is written about functions, methods, fields and topics (of which
the signature is ""), by name; those whose name begins with a prefix.
> qkv.docs("tensor.sum")[1].name == "tensor.sum"]],
function(prefix)
  prefix = prefix or ""
  if type(prefix) ~= "string" then
    error("docs: a prefix of names expected, got a " .. type(prefix), 2)
  end
  return records(function(r) return r.name:sub(1, #prefix) == prefix end)
end)

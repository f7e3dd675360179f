--[[ heads.lua - scores of attention heads: ranked, drawn, printed

Called with (qkv, doc, class, half). The table itself is made by qkv.heads
(repl/bind/heads.c).
]]
local qkv <const>, doc <const>, class <const>, half <const> = ...

local heads <const>, meta <const> = class "heads"

-- In the order of printing; what the numbers are, in words for a picture.
local NAMES <const> = {"induction", "previous", "duplicate", "following",
                       "first", "self", "entropy", "distance",
                       "prefix_matching"}
local UNITS <const> = {entropy = "entropy (bits)",
                       distance = "distance (tokens)"}

local function check_name(h, name, fn)
  for _, known in ipairs(NAMES) do
    if name == known then return h[name] end
  end
  half.raise("%s: score '%s' is not one of %s", fn, tostring(name),
             table.concat(NAMES, ", "))
end

-- "50 random tokens twice, after <|im_start|>, seed 0"; shorter for a picture
local function source_of(h, name, short)
  local four <const> = name == "prefix_matching"
  if h.texts and name ~= "induction" and not four then return "texts" end
  local bos = short and "BOS" or h.bos and "token " .. h.bos
  if not h.bos then
    bos = "no BOS"
  elseif not short then
    local ok <const>, piece = pcall(h.model.pieces, h.model, {h.bos})
    bos = "after " .. (ok and piece[1] or bos)
  end
  return ("%d %s %s, %s, seed %d"):format(
    four and h.prefix_length or h.length, short and "tokens" or "random tokens",
    four and "four times" or "twice", bos, h.seed)
end

heads.top = doc("heads.top", "h:top(name [, k]) -> list",
  "The k (10) heads with the highest score, best first: records {layer=, "
  .. "head=, value=, sd=, n=}; sd and n as h.sd and h.n.\n"
  .. "> qkv.heads(m, {n = 2, length = 8}):top(\"previous\", 3)[1].n == 2",
  function(h, name, k)
    local list <const> = check_name(h, name, "top"):ranked(k or 10)
    for _, one in ipairs(list) do
      one.sd, one.n = h.sd[name][one.layer][one.head], h.n[name]
    end
    return list
  end)

heads.plot = doc("heads.plot", "h:plot(name [, opts]) -> plot",
  "A score as a heat map, layers down and heads across; options as for "
  .. "qkv.plot.heatmap.\n"
  .. "> qkv.heads(m, {n = 1, length = 8}):plot \"induction\"",
  function(h, name, options)
    local given = half.given(options)
    local score <const> = check_name(h, name, "plot")
    given.title = given.title
      or (name:gsub("^%l", string.upper):gsub("_", " "))
    given.xlabel, given.ylabel = given.xlabel or "head", given.ylabel or "layer"
    given.label = given.label or UNITS[name] or "attention"
    given.note = given.note
      or ("n = %d: %s"):format(h.n[name], source_of(h, name, true))
    if not UNITS[name] and not given.range and score:min() >= 0 then
      given.range = {0, 1}
    end
    return qkv.plot.heatmap(score, given)
  end)

-- The three best heads of each score, mean and sd.
function meta.__tostring(h)
  local c <const> = h.model.config
  local lines = {("heads  %s  %d layers x %d heads  mean ± sd of n sequences")
                 :format(h.model.name, c.n_layers, c.n_heads)}
  local shown
  for _, name in ipairs(NAMES) do
    local source <const> = source_of(h, name)
    if source ~= shown then lines[#lines + 1] = "  on " .. source end
    shown = source
    local row = ("    %-15s n %-4d"):format(name, h.n[name])
    for _, one in ipairs(h:top(name, 3)) do
      row = row .. ("  %-7s %.2f ±%.2f"):format(
        "L" .. one.layer .. "H" .. one.head, one.value, one.sd)
    end
    lines[#lines + 1] = row
  end
  return table.concat(lines, "\n")
end

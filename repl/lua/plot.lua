-- plot.lua - qkv.plot: pictures of tensors, shown or saved
--
-- Checks and normalises what it is given, and keeps a plot as plain tables;
-- charts.lua lays it out, figure.lua writes the gnuplot script, sketch.lua
-- draws with letters, and the C half (repl/bind/plot.c) runs gnuplot. Every
-- picture is drawn from the very script that :save("x.gp") writes. Long, since
-- each kind's help text and checks stand beside it.

local qkv <const>, doc <const>, class <const>, half <const> = ...
local P <const>, raise <const> = half.plot, half.raise
P.figure = P.figure or {}
local F <const> = P.figure

local plot = {}
local methods <const>, meta <const> = class "plot"
local state <const> = setmetatable({}, {__mode = "k"})  -- plot -> its tables
local default_theme = "light"

-- Pass on what a function of the C half gave, or raise what it said.
function P.must(value, message, kind, ...)
  if value then return value, message, kind, ... end
  if kind == "interrupted" then error(message, 0) end
  raise("%s", message)
end
local must <const> = P.must

---- options ----

local COMMON <const> = {"title", "xlabel", "ylabel", "size", "theme", "note"}

local function check_options(fn, options, own)
  return half.check_options(fn, options, own, COMMON)
end

local function want(fn, options, name, kind)
  local v = options[name]
  if v ~= nil and type(v) ~= kind then
    raise("%s: option '%s' is a %s, %s expected", fn, name, type(v), kind)
  end
  return v
end

local function one_of(fn, options, name, choices)
  local v = want(fn, options, name, "string")
  if v == nil then return nil end
  local names = {}
  for k in pairs(choices) do names[#names + 1] = k end
  table.sort(names)
  if choices[v] == nil then
    raise("%s: %s '%s' is not one of %s", fn, name, P.spell(v),
          table.concat(names, ", "))
  end
  return v
end

-- Words of a title: on one line, and only what fonts can draw.
local function words(fn, options, name)
  local v = options[name]
  if v == nil or v == "" then return nil end
  if type(v) == "number" then v = tostring(v) end
  if type(v) ~= "string" then
    raise("%s: option '%s' is a %s, string expected", fn, name, type(v))
  end
  return P.spell((v:gsub("%s*\n%s*", " ")))
end

local function check_size(fn, options)
  local size = want(fn, options, "size", "table")
  if not size then return nil end
  local w, h = size[1], size[2]
  for _, v in ipairs {w or false, h or false} do
    if math.type(v) == nil or not (v >= 100 and v <= 8000) then
      raise("%s: size = {width, height} in pixels, each 100 to 8000; got "
            .. "{%s, %s}", fn, tostring(w), tostring(h))
    end
  end
  return {math.floor(w), math.floor(h)}
end

---- numbers and names that are handed in ----

local function is_tensor(x)
  return half.class_of(x) == "qkv.tensor"
end

-- A tensor or (nested) table as nested tables, and the names of its axes.
local function nested(fn, what, x)
  if is_tensor(x) then
    local t = #x.shape > 0 and x:table() or {x:item()}
    return t, x.axes or {}, x.shape
  end
  if type(x) ~= "table" then
    raise("%s: %s is a %s; a tensor or a table of numbers expected", fn, what,
          type(x))
  end
  return x, {}
end

local function check_row(fn, what, row)
  for i = 1, #row do
    if type(row[i]) ~= "number" then
      raise("%s: %s holds a %s at %d, numbers expected", fn, what,
            type(row[i]), i - 1)
    end
  end
  return row
end

local function vector(fn, what, x)
  local v, axes, shape = nested(fn, what, x)
  if shape and #shape > 1 then
    raise("%s: %s has %d axes, one expected", fn, what, #shape)
  end
  return check_row(fn, what, v), axes
end

-- -> rows, number of rows, number of columns, axes
local function matrix(fn, what, x)
  local rows, axes, shape = nested(fn, what, x)
  if shape and #shape ~= 2 then
    raise("%s: %s has %d axes, two expected", fn, what, #shape)
  end
  local n, m = #rows, shape and shape[2] or 0
  for i, row in ipairs(rows) do
    if type(row) ~= "table" then
      raise("%s: %s holds a %s at %d, a list of numbers expected", fn, what,
            type(row), i - 1)
    end
    if i == 1 then m = #row end
    if #row ~= m then
      raise("%s: row %d of %s has %d numbers, row 0 has %d", fn, i - 1, what,
            #row, m)
    end
    check_row(fn, what, row)
  end
  return rows, n, m, axes
end

-- Is it a list of lists (or a tensor of two axes or more)?
local function is_deep(x)
  if is_tensor(x) then return #x.shape > 1 end
  return type(x) == "table" and (type(x[1]) == "table" or is_tensor(x[1]))
end

-- n names, spelled; tokens show their leading blanks. nil stays nil.
local function names(fn, what, list, n, dots)
  if list == nil then return nil end
  if is_tensor(list) then list = list:table() end
  if type(list) ~= "table" then
    raise("%s: %s is a %s, a list expected", fn, what, type(list))
  end
  if #list ~= n then
    raise("%s: %s has %d entries, %d expected", fn, what, #list, n)
  end
  local out = {}
  for i = 1, n do
    local v = list[i]
    if type(v) ~= "string" and type(v) ~= "number" then
      raise("%s: %s holds a %s at %d, strings expected", fn, what, type(v),
            i - 1)
    end
    out[i] = P.spell(tostring(v), dots)
  end
  return out
end

---- plots ----

local function new_plot(fn, kind, spec, options)
  spec.kind = kind
  spec.title = words(fn, options, "title") or spec.title
  spec.note = words(fn, options, "note") or spec.note
  spec.xlabel = words(fn, options, "xlabel") or spec.xlabel
  spec.ylabel = words(fn, options, "ylabel") or spec.ylabel
  spec.size = check_size(fn, options)
  spec.theme = one_of(fn, options, "theme", F.themes)
  local p = setmetatable({}, meta)
  state[p] = spec
  return p
end

-- For charts.lua: what is inside a plot, and the size it would like.
function P.spec_of(p) return state[p] end

function P.size_of(p)
  local spec = state[p]
  if spec.size then return spec.size[1], spec.size[2] end
  return P.sizes[spec.kind](spec)
end

local function check_plot(p)
  local spec = state[p]
  if not spec then raise("qkv.plot expected, got %s", type(p)) end
  return spec
end

-- -> terminal, script
local function script_of(p, format, w, h)
  local spec = state[p]
  if not w then w, h = P.size_of(p) end
  local theme = F.themes[spec.theme or default_theme]
  local c = F.canvas(w, h, theme, format)
  P.charts[spec.kind](c, spec, 0, 0, w, h)
  return F.terminal(format, w, h, theme), c:script()
end

local FORMATS <const> = {png = true, svg = true, pdf = true, gp = true}

-- The script as a file that gnuplot can run by itself.
local function source_of(p, path)
  local terminal, script = script_of(p, "png")
  local stem = path:match("[^/]*$"):gsub("%.gp$", "")
  local picture = stem:gsub("[%c]", "_") .. ".png"
  return table.concat {
    "# qkv ", qkv.version or "", ": ", state[p].title or state[p].kind,
    " (for gnuplot 5.4 or later)\n",
    "set terminal ", terminal, "\n", F.QUOTE,
    "set output ", F.quote(picture), "\n", script, "unset output\n"}
end

local function render(p, format, w, h)
  local terminal, script = script_of(p, format, w, h)
  return (must(P.draw(terminal, script)))
end

methods.render = doc("plot.render", "p:render(format) -> bytes",
  "The picture as a string: format is \"png\", \"svg\", \"pdf\" or \"gp\" "
  .. "(the gnuplot script).", function(p, format)
  check_plot(p)
  if not FORMATS[format] then
    raise("render: format %s; 'png', 'svg', 'pdf' or 'gp' expected",
          type(format) == "string" and "'" .. P.spell(format) .. "'"
          or "is a " .. type(format))
  end
  if format == "gp" then return source_of(p, "plot.gp") end
  return render(p, format)
end)

methods.save = doc("plot.save", "p:save(path)",
  "Write the picture; the end of the name says as what: .png, .svg, .pdf, or "
  .. ".gp, the gnuplot script with all its data, which makes the same "
  .. "picture when gnuplot runs it (and needs no gnuplot to be written). The "
  .. "file appears whole or not at all.", function(p, path)
  check_plot(p)
  if type(path) ~= "string" then
    raise("save: a file's name expected, got a %s", type(path))
  end
  local format = (path:match("[^/.]%.(%w+)$") or ""):lower()
  if format == "html" then
    raise("save: no .html pages yet; .png, .svg, .pdf or .gp expected")
  elseif not FORMATS[format] then
    raise("save: '%s' ends in none of .png, .svg, .pdf, .gp", P.spell(path))
  end
  must(P.write(path, format == "gp" and source_of(p, path)
                     or render(p, format)))
end)

-- "Attention, layer 3" -> "attention-layer-3"
local function stem_of(spec)
  local s = (spec.title or spec.kind):lower():gsub("[^%w]+", "-")
  s = s:sub(1, 40):gsub("^%-+", ""):gsub("%-+$", "")
  return s ~= "" and s or spec.kind
end

-- As wide as the terminal, at most.
local function show_inline(p, terminal)
  local w, h = P.size_of(p)
  if terminal.width > 0 and w > terminal.width then
    w, h = terminal.width, math.max(100, h * terminal.width // w)
  end
  local format = terminal.graphics == "sixel" and "sixel" or "png"
  io.stdout:write(P.encode(terminal.graphics,
                           render(p, format, math.floor(w), math.floor(h))))
end

methods.show = doc("plot.show", "p:show()",
  "Show the picture here, on a terminal that can (kitty, iTerm2, sixel; "
  .. "QKV_GRAPHICS=kitty|iterm|sixel|text|none overrides what is found). Else "
  .. "write it to plots/NNN-title.png, print that name and, on a terminal, a "
  .. "rendering in letters. A plot that ends a line at the prompt shows "
  .. "itself.", function(p)
  local spec = check_plot(p)
  local terminal = P.terminal()
  if terminal.graphics == "none" or terminal.graphics == "text" then
    if terminal.graphics == "text" then
      io.stdout:write(P.sketch(spec, terminal.columns, terminal.rows,
                               terminal.colours))
    end
    local installed = P.installed()
    local stem, format = stem_of(spec), installed and "png" or "gp"
    local bytes = installed and render(p, "png")
                  or source_of(p, stem .. ".gp")
    local path = must(P.write_new("plots", stem, format, bytes))
    if not installed then
      raise("no picture without gnuplot, which is not in PATH; on Debian: "
            .. "apt-get install gnuplot-nox. Its source is in %s", path)
    end
    io.stdout:write(path, "\n")
  else
    show_inline(p, terminal)
  end
  io.stdout:flush()
end)

meta.__show = function(p) methods.show(p) end
meta.__tostring = function(p)
  local spec = state[p]
  if not spec then return "plot" end
  local w, h = P.size_of(p)
  return string.format("plot: %s%s, %d x %d pixels", spec.kind,
                       spec.title and " '" .. spec.title .. "'" or "", w, h)
end

---- scatter ----

local function group_of(fn, list, n)
  local group, order, known = {}, {}, {}
  for i, name in ipairs(names(fn, "groups", list, n) or {}) do
    if not known[name] then
      order[#order + 1] = name
      known[name] = #order
    end
    group[i] = known[name]
  end
  for i = #group + 1, n do group[i] = 1 end
  return group, order
end

-- Which point? A label, or the number of a row from 0.
local function point_index(fn, which, labels, n)
  if type(which) == "string" then
    local spelled = P.spell(which, true)
    for i, name in ipairs(labels or {}) do
      if name == spelled then return i end
    end
    raise("%s: an arrow wants '%s', which is not in labels", fn, spelled)
  end
  local i = math.tointeger(which)
  if not i or i >= n or i < -n then
    raise("%s: an arrow wants point %s of %d: points run 0..%d", fn,
          tostring(which), n, n - 1)
  end
  return (i < 0 and i + n or i) + 1
end

local function check_arrows(fn, list, labels, n)
  local out = {}
  for i, pair in ipairs(list or {}) do
    if type(pair) ~= "table" or #pair ~= 2 then
      raise("%s: arrow %d is not {from, to}", fn, i - 1)
    end
    out[i] = {point_index(fn, pair[1], labels, n),
              point_index(fn, pair[2], labels, n)}
  end
  return out
end

plot.scatter = doc("plot.scatter", "qkv.plot.scatter(xy [, opts]) -> plot",
  "Points xy [n, 2]. labels: n words, placed so that none overlaps; groups: n "
  .. "names, one colour each; arrows: {{from, to}, ...}, by label or by row "
  .. "(from 0). And title, note, xlabel, ylabel, size = {width, height}, "
  .. "theme = \"light\"|\"dark\".\n"
  .. "> qkv.plot.scatter({{0, 1}, {2, 3}}, {labels = {\"a\", \"b\"}})",
  function(xy, options)
  local fn <const> = "scatter"
  options = check_options(fn, options, {"labels", "groups", "arrows"})
  local points, n, m, axes = matrix(fn, "xy", xy)
  if n > 0 and m ~= 2 then
    raise("%s: xy has %d columns, 2 expected", fn, m)
  end
  local labels = names(fn, "labels", options.labels, n, true)
  local group, order = group_of(fn, options.groups, n)
  return new_plot(fn, "scatter",
    {points = points, labels = labels, group_of = group, group_names = order,
     arrows = check_arrows(fn, want(fn, options, "arrows", "table"), labels,
                           n), axes = axes}, options)
end)

---- heat map ----

local SCALES <const> = {sequential = true, diverging = true}

local function check_range(fn, options)
  local range = want(fn, options, "range", "table")
  if range and not (math.type(range[1]) and math.type(range[2])
                    and range[1] < range[2]) then
    raise("%s: range = {lowest, highest} expected, got {%s, %s}", fn,
          tostring(range[1]), tostring(range[2]))
  end
  return range
end

local function check_texts(fn, options, rows, n, m)
  local text = options.text
  if text == nil or text == false then return nil end
  local out = {}
  if text == true then
    for i, row in ipairs(rows) do
      out[i] = {}
      for j, v in ipairs(row) do
        out[i][j] = v ~= v and "nan" or string.format("%.2g", v)
      end
    end
    return out
  end
  if type(text) ~= "table" or #text ~= n then
    raise("%s: text is true, or %d lists of words", fn, n)
  end
  for i = 1, n do out[i] = names(fn, "text", text[i], m, true) end
  return out
end

local function reversed(list)
  local out = {}
  for i = #list, 1, -1 do out[#out + 1] = list[i] end
  return out
end

plot.heatmap = doc("plot.heatmap", "qkv.plot.heatmap(t [, opts]) -> plot",
  "A matrix t [row, col] as colours. rows, cols: names (numbers from 0 "
  .. "otherwise); scale: \"sequential\", or \"diverging\" about 0 (the default "
  .. "when there are both signs); range = {lowest, highest}; label: what the "
  .. "colours mean; text: true (the numbers) or words for each cell; up = "
  .. "true: row 0 at the bottom; palette: \"viridis\", \"magma\", \"blues\", "
  .. "\"rdbu\".\n> qkv.plot.heatmap({{1, 2}, {3, 4}})",
  function(t, options)
  local fn <const> = "heatmap"
  options = check_options(fn, options, {"rows", "cols", "scale", "range",
                                        "label", "text", "up", "palette"})
  local rows, n, m, axes = matrix(fn, "t", t)
  local row_names = names(fn, "rows", options.rows, n, true)
  local texts = check_texts(fn, options, rows, n, m)
  if want(fn, options, "up", "boolean") then
    rows = reversed(rows)
    texts = texts and reversed(texts)
    if not row_names then
      row_names = {}
      for i = 1, n do row_names[i] = tostring(i - 1) end
    end
    row_names = reversed(row_names)
  end
  local lo, hi = F.extent(rows)
  local function axis(i) return axes[i] ~= "" and axes[i] or nil end
  return new_plot(fn, "heatmap",
    {rows = rows, n_rows = n, n_cols = m, row_names = row_names,
     col_names = names(fn, "cols", options.cols, m, true), texts = texts,
     scale = one_of(fn, options, "scale", SCALES)
       or (lo and lo < 0 and hi > 0 and "diverging") or "sequential",
     range = check_range(fn, options), label = words(fn, options, "label"),
     palette = one_of(fn, options, "palette", F.palettes),
     xlabel = not options.cols and axis(2) or nil,
     ylabel = not options.rows and axis(1) or nil}, options)
end)

---- bar ----

plot.bar = doc("plot.bar", "qkv.plot.bar(v [, opts]) -> plot",
  "Bars of v [n]. labels: n names; error: n half-lengths of error bars (say "
  .. "in the note what they are); horizontal = true|false (by itself: when "
  .. "the names would not fit side by side); text: true (the numbers) or n "
  .. "words at the bars' ends.\n"
  .. "> qkv.plot.bar({1, 2, 3}, {labels = {\"a\", \"b\", \"c\"}})",
  function(v, options)
  local fn <const> = "bar"
  options = check_options(fn, options, {"labels", "error", "horizontal",
                                        "text"})
  local values, axes = vector(fn, "v", v)
  local errors = options.error ~= nil
    and vector(fn, "error", options.error) or nil
  if errors and #errors ~= #values then
    raise("%s: error has %d entries, %d expected", fn, #errors, #values)
  end
  local texts = options.text
  if texts == true then
    texts = {}
    for i, x in ipairs(values) do texts[i] = string.format("%.3g", x) end
  end
  local labels = names(fn, "labels", options.labels, #values, true)
  return new_plot(fn, "bar",
    {values = values, errors = errors, labels = labels,
     horizontal = want(fn, options, "horizontal", "boolean"),
     texts = names(fn, "text", texts or nil, #values),
     xlabel = not labels and axes[1] ~= "" and axes[1] or nil}, options)
end)

---- histogram ----

local function flatten(fn, x, into)
  if type(x) == "number" then
    into[#into + 1] = x
  elseif type(x) == "table" then
    for i = 1, #x do flatten(fn, x[i], into) end
  else
    raise("%s: v holds a %s, numbers expected", fn, type(x))
  end
  return into
end

-- Freedman and Diaconis (1981): a bin is 2 IQR / n^(1/3) wide.
local function usual_bins(sorted)
  local n = #sorted
  local iqr = sorted[math.ceil(0.75 * n)] - sorted[math.ceil(0.25 * n)]
  local span = sorted[n] - sorted[1]
  if not (iqr > 0) then return math.min(30, n) end
  return math.max(1, math.min(100,
    math.ceil(math.min(1e6, span / (2 * iqr / n ^ (1 / 3))))))
end

local function check_bins(fn, options)
  local bins = want(fn, options, "bins", "number")
  if bins and not (math.tointeger(bins) and bins >= 1 and bins <= 1000) then
    raise("%s: %s bins; 1 to 1000 expected", fn, tostring(bins))
  end
  return bins
end

plot.histogram = doc("plot.histogram",
  "qkv.plot.histogram(v [, opts]) -> plot",
  "How often values occur: all numbers of v, whatever its shape, in `bins` "
  .. "bins of equal width (by itself: Freedman and Diaconis). What is not "
  .. "finite is left out, and counted under the title.\n"
  .. "> qkv.plot.histogram({1, 2, 2, 3, 3, 3}, {bins = 3})",
  function(v, options)
  local fn <const> = "histogram"
  options = check_options(fn, options, {"bins"})
  local all = flatten(fn, (nested(fn, "v", v)), {})
  local sorted = {}
  for _, x in ipairs(all) do
    if F.finite(x) then sorted[#sorted + 1] = x end
  end
  table.sort(sorted)
  local bins, n = check_bins(fn, options), #sorted
  local counts, lo, width = {}, 0, 1
  if n > 0 then
    bins = bins or usual_bins(sorted)
    lo = sorted[1]
    local span = sorted[n] - lo
    if not (span > 0) then
      span = lo ~= 0 and math.abs(lo) or 1
      lo, bins = lo - span / 2, options.bins or 1
    end
    width = span / bins
    for i = 1, bins do counts[i] = 0 end
    for _, x in ipairs(sorted) do   -- the last bin holds its right end, too
      local i = math.min(bins, math.floor((x - lo) / width) + 1)
      counts[i] = counts[i] + 1
    end
  end
  local note = string.format("n = %d", n)
  if #all > n then note = note .. string.format(", %d not finite", #all - n) end
  return new_plot(fn, "histogram",
    {counts = counts, lo = lo, width = width, note = note, xlabel = "value",
     ylabel = "count"}, options)
end)

---- line ----

-- One list of numbers, or one for each series, in the same shape as y.
local function series_of(fn, what, x, deep)
  if x == nil then return nil end
  if deep then
    local out = {}
    local rows = nested(fn, what, x)
    for i = 1, #rows do out[i] = vector(fn, what, rows[i]) end
    return out
  end
  return {(vector(fn, what, x))}
end

plot.line = doc("plot.line", "qkv.plot.line(y [, opts]) -> plot",
  "Lines of y [n], or of y [series, n] (or a list of lists). x: n numbers "
  .. "(0, 1, ... otherwise); band: half-widths of the shaded band about each "
  .. "line, shaped as y (say in the note what it is); labels: a name for each "
  .. "line. nan is a gap.\n> qkv.plot.line({1, 4, 9}, {band = {1, 1, 2}})",
  function(y, options)
  local fn <const> = "line"
  options = check_options(fn, options, {"x", "band", "labels"})
  local deep = is_deep(y)
  local ys = series_of(fn, "y", y, deep)
  local bands = series_of(fn, "band", options.band, deep)
  local n = 0
  for _, s in ipairs(ys) do n = math.max(n, #s) end
  local x = options.x ~= nil and vector(fn, "x", options.x) or nil
  if x and #x ~= n then
    raise("%s: x has %d entries, the longest line has %d", fn, #x, n)
  end
  if not x then
    x = {}
    for i = 1, n do x[i] = i - 1 end
  end
  if bands and #bands ~= #ys then
    raise("%s: band has %d lines, y has %d", fn, #bands, #ys)
  end
  local labels = options.labels
  if type(labels) == "string" then labels = {labels} end
  labels = names(fn, "labels", labels, #ys)
  local series = {}
  for k, s in ipairs(ys) do
    local band, lo, hi = bands and bands[k], nil, nil
    if band then
      if #band ~= #s then
        raise("%s: band %d has %d entries, its line has %d", fn, k - 1,
              #band, #s)
      end
      lo, hi = {}, {}
      for i, v in ipairs(s) do lo[i], hi[i] = v - band[i], v + band[i] end
    end
    series[k] = {y = s, lo = lo, hi = hi, name = labels and labels[k]}
  end
  return new_plot(fn, "line", {series = series, x = x}, options)
end)

---- attention ----

-- The last n of the tokens: those that ask, when only some do.
local function last_names(list, n)
  if not list then return nil end
  return table.move(list, #list - n + 1, #list, 1, {})
end

local function check_heads(fn, list, n)
  local out = {}
  if list == nil then
    for i = 1, n do out[i] = i - 1 end
    return out
  end
  if type(list) == "number" then list = {list} end
  if is_tensor(list) then list = list:table() end
  if type(list) ~= "table" then
    raise("%s: heads is a %s, a list of numbers expected", fn, type(list))
  end
  for i, h in ipairs(list) do
    local k = math.tointeger(h)
    if not k or k >= n or k < -n then
      raise("%s: head %s of %d: heads run 0..%d", fn, tostring(h), n, n - 1)
    end
    out[i] = k < 0 and k + n or k
  end
  return out
end

plot.attention = doc("plot.attention",
  "qkv.plot.attention(pattern [, opts]) -> plot",
  "Attention weights, pattern [head, query, key] or [query, key], one panel "
  .. "for each head, all on one scale from 0 to 1. tokens: a word for each "
  .. "key; heads: which to show (from 0). Cells that a causal mask forbids "
  .. "are grey.\n"
  .. "> qkv.plot.attention({{1, 0}, {0.5, 0.5}}, {tokens = {\"a\", \" b\"}})",
  function(pattern, options)
  local fn <const> = "attention"
  options = check_options(fn, options, {"tokens", "heads", "palette"})
  local list, _, shape = nested(fn, "pattern", pattern)
  local three = shape and #shape == 3
    or not shape and type(list[1]) == "table" and type(list[1][1]) == "table"
  if shape and #shape ~= 2 and #shape ~= 3 then
    raise("%s: pattern has %d axes; [head, query, key] or [query, key] "
          .. "expected", fn, #shape)
  end
  if not three then list = {list} end
  if not three and options.heads ~= nil then
    raise("%s: heads = needs a pattern [head, query, key]", fn)
  end
  local which, heads = check_heads(fn, options.heads, #list), {}
  local n_query, n_key = 0, 0
  for i, h in ipairs(which) do
    local rows, n, m = matrix(fn, "pattern", list[h + 1])
    if i > 1 and (n ~= n_query or m ~= n_key) then
      raise("%s: head %d is [%d, %d], another is [%d, %d]", fn, h, n, m,
            n_query, n_key)
    end
    n_query, n_key = n, m
    heads[i] = {rows = rows, name = "head " .. h}
  end
  local tokens = names(fn, "tokens", options.tokens, n_key, true)
  local same = n_query <= n_key
  return new_plot(fn, "attention",
    {heads = heads, n_query = n_query, n_key = n_key, key_names = tokens,
     query_names = same and last_names(tokens, n_query) or nil,
     palette = one_of(fn, options, "palette", F.palettes),
     title = "Attention" .. (three and #which == 1
                             and ", head " .. which[1] or "")}, options)
end)

---- grid ----

plot.grid = doc("plot.grid", "qkv.plot.grid(plots [, opts]) -> plot",
  "Several plots on one page, row by row, in `columns` columns.\n"
  .. "> qkv.plot.grid({qkv.plot.line({1, 2}), qkv.plot.bar({1, 2})}, "
  .. "{columns = 2})",
  function(list, options)
  local fn <const> = "grid"
  options = check_options(fn, options, {"columns"})
  if type(list) ~= "table" or state[list] then
    raise("%s: a list of plots expected, got a %s", fn,
          state[list] and "plot" or type(list))
  end
  local plots = {}
  for i = 1, #list do
    if not state[list[i]] then
      raise("%s: entry %d is a %s, a plot expected", fn, i - 1, type(list[i]))
    end
    plots[i] = list[i]
  end
  local columns = want(fn, options, "columns", "number")
                  or math.ceil(math.sqrt(math.max(1, #plots)))
  if not (math.tointeger(columns) and columns >= 1 and columns <= 50) then
    raise("%s: %s columns; 1 to 50 expected", fn, tostring(columns))
  end
  return new_plot(fn, "grid", {plots = plots,
                               columns = math.min(columns,
                                                  math.max(1, #plots))},
                  options)
end)

plot.theme = doc("plot.theme", "qkv.plot.theme(name)",
  "Colours of all plots that do not name their own: \"light\" or \"dark\".\n"
  .. "> qkv.plot.theme(\"light\")", function(name)
  default_theme = one_of("theme", {name = name}, "name", F.themes)
                  or raise("theme: a name expected")
end)

---- pictures of runs and analyses ----

local run <const>, pca <const> = class "run", class "pca"

run.plot_attention = doc("run.plot_attention",
  "r:plot_attention(layer [, head]) -> plot",
  "The attention pattern of a layer (from 0; negative: from the end), a panel "
  .. "for each head, or of one head.", function(r, layer, head)
  local l = math.tointeger(layer)
  if not l then
    raise("plot_attention: layer is a %s, an integer expected", type(layer))
  end
  local n = r.model.config.n_layers
  if l < -n or l >= n then
    raise("layer %d of %d: layers run 0..%d", l, n, n - 1)
  end
  l = l < 0 and l + n or l
  return plot.attention(r("pattern", l),
    {tokens = r.pieces, heads = head,
     title = "Attention, layer " .. l
             .. (head and ", head " .. tostring(head) or "")})
end)

run.plot_lens = doc("run.plot_lens", "r:plot_lens() -> plot",
  "The logit lens: the token that each layer's residual would predict, read "
  .. "through the final norm and the unembedding, with its probability. Row "
  .. "by layer (the last on top), column by position.", function(r)
  local value, text = {}, {}
  for i, layer in ipairs(r:lens(1)) do
    value[i], text[i] = {}, {}
    for j, cell in ipairs(layer) do
      local best = cell[1] or cell
      value[i][j], text[i][j] = best.prob, best.piece
    end
  end
  return plot.heatmap(value,
    {text = text, cols = r.pieces, up = true, range = {0, 1},
     palette = "blues", label = "probability", ylabel = "layer",
     xlabel = "input token",
     title = "Logit lens: the next token, as each layer would have it"})
end)

run.plot_top = doc("run.plot_top", "r:plot_top([k]) -> plot",
  "The k (10) most likely next tokens with their probabilities.",
  function(r, k)
  local probs, labels, text = {}, {}, {}
  for i, t in ipairs(r:top(k or 10)) do
    probs[i], labels[i] = t.prob, t.piece
    text[i] = string.format("%.1f %%", 100 * t.prob)
  end
  return plot.bar(probs, {labels = labels, text = text, horizontal = true,
                          xlabel = "probability",
                          title = "Most likely next tokens"})
end)

pca.plot = doc("pca.plot", "p:plot([opts]) -> plot",
  "The scores on the first two components, with the part of the variance "
  .. "that each explains; options as for qkv.plot.scatter.",
  function(p, options)
  local scores, ratio = p.scores, p.ratio
  if is_tensor(ratio) then ratio = ratio:table() end
  local xy = {}
  for i, row in ipairs((matrix("plot", "scores", scores))) do
    if #row < 2 then
      raise("plot: one component; qkv.pca(x, {k = 2}) gives two")
    end
    xy[i] = {row[1], row[2]}
  end
  local given = {}
  for k, v in pairs(options or {}) do given[k] = v end
  local function title(i)
    return string.format("PC %d  (%.1f %% of variance)", i, 100 * ratio[i])
  end
  given.xlabel = given.xlabel or title(1)
  given.ylabel = given.ylabel or title(2)
  given.title = given.title or "Principal components"
  return plot.scatter(xy, given)
end)

qkv.plot = plot

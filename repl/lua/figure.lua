-- figure.lua - the drawing surface of pictures: themes, palettes, a script
--
-- A canvas collects a gnuplot script. Everything is placed in pixels (x to
-- the right, y downward) and written as `at screen`, so that what is drawn
-- does not depend on gnuplot's own idea of margins, and is the same for PNG,
-- SVG and PDF. Words are always between single quotes (F.quote), on a
-- terminal set `noenhanced`: between double quotes gnuplot would run a
-- command in back-quotes. Works with gnuplot 5.4 and 6.0.

local _, _, _, half <const> = ...
local P <const> = half.plot             -- the C half: repl/bind/plot.c

local F = P.figure or {}             -- halves load in any order
P.figure = F

---- colours ----

F.themes = {
  light = {paper = "#ffffff", ink = "#222222", muted = "#555555",
           axis = "#888888", grid = "#e8e8e8", panel = "#eeeeee",
           leader = "#b0b0b0",
           -- Paul Tol's bright scheme and more: told apart by colour-blind
           series = {"#4477aa", "#ee6677", "#228833", "#aa3377", "#bb9922",
                     "#33a0c0", "#777722", "#666666"}},
  dark = {paper = "#1b1d23", ink = "#e8e8e8", muted = "#b0b4bc",
          axis = "#7a7f89", grid = "#33363f", panel = "#2a2d35",
          leader = "#6a6f79",
          series = {"#77aadd", "#ee8866", "#44bb99", "#ffaabb", "#eedd88",
                    "#99ddff", "#bbcc33", "#bbbbbb"}},
}

-- {place in 0..1, colour}: perceptually even; also drawn in the terminal.
F.palettes = {
  -- matplotlib's viridis and magma (Smith, van der Walt, Firing; CC0)
  viridis = {{0, "#440154"}, {0.13, "#472c7a"}, {0.25, "#3b518b"},
             {0.38, "#2c718e"}, {0.5, "#21908d"}, {0.63, "#27ad81"},
             {0.75, "#5cc863"}, {0.88, "#aadc32"}, {1, "#fde725"}},
  magma = {{0, "#000004"}, {0.13, "#1d1147"}, {0.25, "#51127c"},
           {0.38, "#832681"}, {0.5, "#b73779"}, {0.63, "#e75263"},
           {0.75, "#fc8961"}, {0.88, "#fec488"}, {1, "#fcfdbf"}},
  -- ColorBrewer (Brewer, Harrower): one hue, and red against blue
  blues = {{0, "#ffffff"}, {0.1, "#e3eef8"}, {0.25, "#c6dbef"},
           {0.4, "#9ecae1"}, {0.55, "#6baed6"}, {0.7, "#4292c6"},
           {0.82, "#2171b5"}, {0.92, "#08519c"}, {1, "#08306b"}},
  rdbu = {{0, "#2166ac"}, {0.17, "#4393c3"}, {0.335, "#92c5de"},
          {0.45, "#d1e5f0"}, {0.5, "#f7f7f7"}, {0.55, "#fddbc7"},
          {0.665, "#f4a582"}, {0.83, "#d6604d"}, {1, "#b2182b"}},
}

local function channels(hex)
  return tonumber(hex:sub(2, 3), 16), tonumber(hex:sub(4, 5), 16),
         tonumber(hex:sub(6, 7), 16)
end

-- Colour at place u of a palette (clamped) as three bytes.
function F.colour_at(palette, u)
  local stops = F.palettes[palette]
  u = math.max(0, math.min(1, u))
  local i = 2
  while i < #stops and stops[i][1] < u do i = i + 1 end
  local a, b = stops[i - 1], stops[i]
  local k = (u - a[1]) / (b[1] - a[1])
  local r0, g0, b0 = channels(a[2])
  local r1, g1, b1 = channels(b[2])
  return math.floor(r0 + k * (r1 - r0) + 0.5),
         math.floor(g0 + k * (g1 - g0) + 0.5),
         math.floor(b0 + k * (b1 - b0) + 0.5)
end

-- Is black or white ink easier to read on that colour? (luma of BT.601)
function F.ink_on(palette, u)
  local r, g, b = F.colour_at(palette, u)
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 and "#222222" or "#ffffff"
end

---- numbers ----

-- Steps of 1, 2 or 5 times a power of ten: about `want` ticks that lie in
-- [lo, hi], as {{value=, text=}, ...}.
function F.ticks(lo, hi, want)
  local span = hi - lo
  if not (span > 0 and span < math.huge) then
    return {{value = lo, text = string.format("%g", lo)}}
  end
  local raw = span / math.max(1, want)
  local unit = 10.0 ^ math.floor(math.log(raw, 10))
  local step = unit * 10
  for _, k in ipairs {1, 2, 5} do
    if unit * k >= raw * 0.999 then step = unit * k; break end
  end
  local digits = math.max(0, -math.floor(math.log(step, 10) + 1e-9))
  local far = math.max(math.abs(lo), math.abs(hi))
  local form = (far >= 1e6 or (digits > 4 and far < 1e-3)) and "%.4g"
               or "%." .. math.min(digits, 12) .. "f"
  local ticks = {}
  for i = math.ceil(lo / step - 1e-6), math.floor(hi / step + 1e-6) do
    local value = i * step
    local text = string.format(form, value)
    if tonumber(text) == 0 then text = "0" end
    ticks[#ticks + 1] = {value = value, text = text}
  end
  return ticks
end

-- A number for a data block; what is not finite is not drawn.
local function number(v)
  if v ~= v or v == math.huge or v == -math.huge then return "NaN" end
  return string.format("%.7g", v)
end

---- the canvas ----

local Canvas = {}
Canvas.__index = Canvas

function F.canvas(width, height, theme, format)
  return setmetatable({width = width, height = height, theme = theme,
                       format = format, lines = {}, panels = 0, blocks = 0,
                       tags = 0, pending = {}}, Canvas)
end

function Canvas:put(form, ...)
  self.lines[#self.lines + 1] = string.format(form, ...)
end

function Canvas:sx(x) return x / self.width end
function Canvas:sy(y) return 1 - y / self.height end

-- A word as a gnuplot string. Its own way to write a quote inside, twice, is
-- misread at the beginning of a string (5.4), and a typographic quote would be
-- another token: so quotes are joined in as the variable q, which every script
-- sets first.
F.QUOTE = "q = sprintf('%c', 39)\n"
function F.quote(text)
  local parts = {}
  for part, quote in text:gsub("%c", " "):gmatch "([^']*)('?)" do
    if part ~= "" then parts[#parts + 1] = "'" .. part .. "'" end
    if quote ~= "" then parts[#parts + 1] = "q" end
  end
  return #parts > 0 and table.concat(parts, ".") or "''"
end

-- Diameter in pixels -> pointsize; the terminals differ.
local PIXELS_A_POINT <const> = {png = 8.2, svg = 10.9, pdf = 8.6, sixel = 8.2}
function Canvas:points(pixels)
  return pixels / (PIXELS_A_POINT[self.format] or 8.2)
end

function F.width(text, size) return P.width(text) * size end

-- Text no wider than `most` pixels, with an ellipsis where it was cut.
function F.fit(text, size, most)
  if F.width(text, size) <= most then return text end
  return P.cut(text, math.max(0, most / size - 1)) .. "…"
end

-- A panel: its own plot command, its axes at these pixels. What was set for
-- the panel before is forgotten.
function Canvas:panel(left, top, right, bottom)
  self.panels = self.panels + 1
  self.tags = 0
  self.area = {left = left, top = top, right = right, bottom = bottom}
  local t = self.theme
  self:put("\nreset")
  self:put("set lmargin at screen %.5f; set rmargin at screen %.5f",
           self:sx(left), self:sx(right))
  self:put("set tmargin at screen %.5f; set bmargin at screen %.5f",
           self:sy(top), self:sy(bottom))
  self:put("unset key; unset colorbox; unset xtics; unset ytics")
  self:put("set border 3 lw 1 lc rgb '%s'", t.axis)
  local pending = self.pending
  self.pending = {}
  for _, fn in ipairs(pending) do fn() end
end

-- Draw fn() with the next panel: for what belongs to no panel.
function Canvas:later(fn)
  self.pending[#self.pending + 1] = fn
end

-- align: left, center, right. angle: 90 reads upward.
function Canvas:text(text, x, y, o)
  o = o or {}
  if text == "" then return end
  self.tags = self.tags + 1
  self:put("set label %d %s at screen %.5f,%.5f %s%s font ',%g' "
           .. "textcolor rgb '%s' front", self.tags, F.quote(text),
           self:sx(x), self:sy(y), o.align or "left",
           o.angle and " rotate by " .. o.angle or "", o.size or 12,
           o.colour or self.theme.ink)
end

function Canvas:dot(x, y, diameter, colour)
  self.tags = self.tags + 1
  self:put("set label %d '' at screen %.5f,%.5f point pt 7 ps %.3g "
           .. "lc rgb '%s' front", self.tags, self:sx(x), self:sy(y),
           self:points(diameter), colour)
end

function Canvas:line(x0, y0, x1, y1, o)
  o = o or {}
  self.tags = self.tags + 1
  self:put("set arrow %d from screen %.5f,%.5f to screen %.5f,%.5f %s "
           .. "lw %.3g lc rgb '%s' %s", self.tags, self:sx(x0), self:sy(y0),
           self:sx(x1), self:sy(y1),
           o.head and string.format("head filled size screen %.5f,18",
                                    9 / self.width) or "nohead",
           o.width or 1, o.colour or self.theme.axis, o.layer or "back")
end

function Canvas:rectangle(x0, y0, x1, y1, colour, layer)
  self.tags = self.tags + 1
  self:put("set object %d rectangle from screen %.5f,%.5f to screen "
           .. "%.5f,%.5f fillcolor rgb '%s' fillstyle solid noborder %s",
           self.tags, self:sx(x0), self:sy(y0), self:sx(x1), self:sy(y1),
           colour, layer or "behind")
end

-- rows: a list of lists of numbers -> the name of a data block.
function Canvas:data(rows)
  self.blocks = self.blocks + 1
  local name = "$d" .. self.blocks
  local lines = {name .. " << END"}
  for i, row in ipairs(rows) do
    local words = {}
    for j, v in ipairs(row) do words[j] = number(v) end
    lines[i + 1] = table.concat(words, " ")
  end
  lines[#lines + 1] = "END"
  self.lines[#self.lines + 1] = table.concat(lines, "\n")
  return name
end

function Canvas:ranges(x0, x1, y0, y1)
  self.x0, self.x1, self.y0, self.y1 = x0, x1, y0, y1
  self:put("set xrange [%.9g:%.9g]; set yrange [%.9g:%.9g]", x0, x1, y0, y1)
end

-- From the axes' units to pixels.
function Canvas:px(x)
  local a = self.area
  return a.left + (x - self.x0) / (self.x1 - self.x0) * (a.right - a.left)
end

function Canvas:py(y)
  local a = self.area
  return a.bottom - (y - self.y0) / (self.y1 - self.y0) * (a.bottom - a.top)
end

-- Ticks of axis "x" or "y", with their grid lines if asked for.
function Canvas:ticks(axis, ticks, grid)
  local t, list = self.theme, {}
  for i, k in ipairs(ticks) do
    list[i] = string.format("'%s' %.9g", k.text, k.value)
  end
  self:put("set %stics nomirror out scale 0.4 font ',12' textcolor rgb '%s' "
           .. "(%s)", axis, t.muted, table.concat(list, ", "))
  if grid then
    self:put("set grid %stics lt 1 lw 0.8 lc rgb '%s'", axis, t.grid)
  end
end

function Canvas:palette(name, lo, hi)
  local stops = {}
  for i, s in ipairs(F.palettes[name]) do
    stops[i] = string.format("%g '%s'", s[1], s[2])
  end
  self:put("set palette defined (%s)", table.concat(stops, ", "))
  self:put("set cbrange [%.9g:%.9g]", lo, hi)
end

-- A colour bar at these pixels, `label` beside it, reading upward.
function Canvas:colourbar(x, top, bottom, lo, hi, label)
  local ticks = F.ticks(lo, hi, math.min(5, (bottom - top) / 40))
  local list, widest = {}, 0
  for i, k in ipairs(ticks) do
    list[i] = string.format("'%s' %.9g", k.text, k.value)
    widest = math.max(widest, F.width(k.text, 12))
  end
  self:put("set colorbox user origin screen %.5f,%.5f size screen %.5f,%.5f "
           .. "noborder front", self:sx(x), self:sy(bottom),
           14 / self.width, (bottom - top) / self.height)
  self:put("set cbtics scale 0 font ',12' textcolor rgb '%s' (%s)",
           self.theme.muted, table.concat(list, ", "))
  if label then
    self:text(F.fit(label, 13, bottom - top + 40), x + 36 + widest,
              (top + bottom) / 2,
              {size = 13, align = "center", angle = 90,
               colour = self.theme.muted})
  end
end

-- Pixels that a colour bar takes, with its numbers and its label.
function F.colourbar_width(lo, hi, label)
  local widest = 0
  for _, k in ipairs(F.ticks(lo, hi, 5)) do
    widest = math.max(widest, F.width(k.text, 12))
  end
  return 14 + 14 + 8 + widest + (label and 22 or 0)
end

-- The finished script, without `set terminal` and `set output`.
function Canvas:script()
  local head = F.QUOTE .. (self.panels > 1 and "set multiplot" or "")
  local tail = self.panels > 1 and "\nunset multiplot\n" or "\n"
  return head .. table.concat(self.lines, "\n") .. tail
end

---- terminals ----

-- What stands after `set terminal` so that a text of size 12 is 12 pixels
-- high in each (measured: 1 em of DejaVu Sans).
local TERMINALS <const> = {
  png = "pngcairo noenhanced size %d,%d font 'DejaVu Sans,12' "
        .. "fontscale 0.75 background rgb '%s'",
  svg = "svg noenhanced size %d,%d font 'DejaVu Sans,12' "
        .. "background rgb '%s' standalone",
  pdf = "pdfcairo noenhanced size %.4f,%.4f font 'DejaVu Sans,12' "
        .. "fontscale 0.5625 linewidth 1.4 background rgb '%s'",
  sixel = "sixelgd noenhanced truecolor size %d,%d font 'DejaVu Sans,12' "
          .. "fontscale 0.75 background rgb '%s'",
}

function F.terminal(format, width, height, theme)
  if format == "pdf" then width, height = width / 96, height / 96 end
  return string.format(TERMINALS[format], width, height, theme.paper)
end

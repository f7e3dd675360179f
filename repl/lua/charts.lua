-- charts.lua - the kinds of picture: where their parts go, in pixels
--
-- Each kind is a function draw(c, spec, x, y, w, h): it draws `spec` (checked
-- and normalised by plot.lua) on canvas c (figure.lua) into the rectangle of
-- w x h pixels at x, y; a grid gives each of its pictures such a rectangle.
-- sizes[kind](spec) is the size a picture would like to have. Long, since it is
-- seven short kinds that share their axes, legends and cells.

local _, _, _, half <const> = ...
local P <const> = half.plot
P.figure = P.figure or {}
local F <const> = P.figure

local charts, sizes = {}, {}
P.charts, P.sizes = charts, sizes

local PAD <const> = 16              -- of a figure, pixels
local TITLE <const>, LABEL <const>, TICK <const> = 17, 13, 12   -- text sizes

---- what all kinds share ----

local function finite(v)
  return v == v and v ~= math.huge and v ~= -math.huge
end
F.finite = finite

-- Smallest and largest finite number of lists of lists; nil when none is.
local function extent(rows)
  local lo, hi = math.huge, -math.huge
  for _, row in ipairs(rows) do
    for _, v in ipairs(row) do
      if finite(v) then lo, hi = math.min(lo, v), math.max(hi, v) end
    end
  end
  if lo <= hi then return lo, hi end
end
F.extent = extent

-- A range that leaves some air around the data.
local function airy(lo, hi, air)
  local span = hi - lo
  if span == 0 then span = math.abs(lo) > 0 and math.abs(lo) or 1 end
  return lo - air * span, hi + air * span
end

local function widest(texts, size)
  local w = 0
  for _, t in ipairs(texts) do w = math.max(w, F.width(t, size)) end
  return w
end

local function texts_of(ticks)
  local out = {}
  for i, k in ipairs(ticks) do out[i] = k.text end
  return out
end

-- Title and note, from the top of the rectangle on: how high they are.
local function heading_height(spec)
  return (spec.title and 32 or 8) + (spec.note and 18 or 0)
end

local function heading(c, spec, x, y, w)
  if spec.title then
    local size = TITLE
    while size > 11 and F.width(spec.title, size) > w do size = size - 1 end
    c:text(F.fit(spec.title, size, w), x, y + 10, {size = size})
  end
  if spec.note then
    c:text(F.fit(spec.note, TICK, w), x, y + (spec.title and 34 or 10),
           {size = TICK, colour = c.theme.muted})
  end
end

-- A legend in rows, {{text=, colour=, mark="dot"|"line"}, ...}. Returns the
-- rows as they break, so that the height is known before drawing.
local function legend_rows(items, w)
  local rows, at = {}, 0
  for _, item in ipairs(items) do
    local text = F.fit(item.text, LABEL, math.min(w - 30, 260))
    local wide = 22 + F.width(text, LABEL) + 22
    if #rows == 0 or (at + wide > w and at > 0) then
      rows[#rows + 1] = {}
      at = 0
    end
    table.insert(rows[#rows], {at = at, text = text, item = item})
    at = at + wide
  end
  return rows
end

local function legend(c, rows, x, y)
  for i, row in ipairs(rows) do
    local mid = y + (i - 1) * 20 + 10
    for _, k in ipairs(row) do
      if k.item.mark == "line" then
        c:line(x + k.at, mid, x + k.at + 16, mid,
               {width = 2.4, colour = k.item.colour, layer = "front"})
      else
        c:dot(x + k.at + 7, mid, 9, k.item.colour)
      end
      c:text(k.text, x + k.at + 22, mid,
             {size = LABEL, colour = c.theme.ink})
    end
  end
end

-- Axes with numbers: heading, legend, titles, ticks; the plot area is what
-- remains. o: xlo xhi ylo yhi; items (legend); xticks, yticks (false: none,
-- nil: by themselves); bottom, left (extra pixels for words there).
local function axes(c, spec, x, y, w, h, o)
  local rows = legend_rows(o.items or {}, w - 2 * PAD)
  local top = y + PAD + heading_height(spec) + #rows * 20
              + (#rows > 0 and 6 or 0)
  local bottom = y + h - PAD - (spec.xlabel and 24 or 0)
                 - (o.xticks ~= false and 18 or 0) - (o.bottom or 0)
  bottom = math.max(bottom, top + 20)
  local yticks = o.yticks
  if yticks == nil then
    yticks = F.ticks(o.ylo, o.yhi, math.max(2, (bottom - top) / 60))
  end
  local left = x + PAD + (spec.ylabel and 24 or 0) + (o.left or 0)
               + (yticks and widest(texts_of(yticks), TICK) + 8 or 0)
  local right = x + w - PAD - 8
  left = math.min(left, right - 20)
  local xticks = o.xticks
  if xticks == nil then
    xticks = F.ticks(o.xlo, o.xhi, math.max(2, (right - left) / 90))
  end
  c:panel(left, top, right, bottom)
  c:ranges(o.xlo, o.xhi, o.ylo, o.yhi)
  if xticks then c:ticks("x", xticks, o.xgrid ~= false) end
  if yticks then c:ticks("y", yticks, o.ygrid ~= false) end
  heading(c, spec, x + PAD, y + PAD, w - 2 * PAD)
  legend(c, rows, x + PAD, y + PAD + heading_height(spec) - 2)
  if spec.xlabel then
    c:text(F.fit(spec.xlabel, LABEL, right - left + 60), (left + right) / 2,
           y + h - PAD - 6,
           {size = LABEL, align = "center", colour = c.theme.muted})
  end
  if spec.ylabel then
    c:text(F.fit(spec.ylabel, LABEL, bottom - top + 60), x + PAD + 7,
           (top + bottom) / 2, {size = LABEL, align = "center", angle = 90,
                                colour = c.theme.muted})
  end
end

-- Nothing to draw: say so in the middle.
local function empty(c, spec, x, y, w, h)
  axes(c, spec, x, y, w, h, {xlo = 0, xhi = 1, ylo = 0, yhi = 1,
                             xticks = false, yticks = false})
  c:text("no data", x + w / 2, y + h / 2,
         {align = "center", size = LABEL, colour = c.theme.muted})
  c:put("plot NaN notitle")
end

local function usual_size() return 820, 600 end

---- scatter ----

sizes.scatter = function() return 900, 680 end

-- Text beside each point, moved until none overlaps (labels.c).
local function label_points(c, spec)
  local a, labels, n = c.area, {}, #spec.points
  local size = n <= 60 and 14 or n <= 150 and 12 or 10
  local segments = {}
  for i, k in ipairs(spec.arrows) do
    local p, q = spec.points[k[1]], spec.points[k[2]]
    segments[i] = {c:px(p[1]), c:py(p[2]), c:px(q[1]), c:py(q[2])}
  end
  for i, p in ipairs(spec.points) do
    local text = F.fit(spec.labels[i], size, 260)
    labels[i] = {x = c:px(p[1]), y = c:py(p[2]), text = text,
                 width = text ~= "" and F.width(text, size) + 4 or 0,
                 height = size + 4}
  end
  P.must(P.place(labels, {left = a.left + 3, top = a.top + 1,
                          right = a.right + 8, bottom = a.bottom - 3,
                          radius = 5.5}, segments))
  for i, l in ipairs(labels) do
    if l.shown then
      if l.leader then
        c:line(l.x, l.y, l.ax, l.ay,
               {width = 0.8, colour = c.theme.leader})
      end
      c:text(l.text, l.ax, l.ay,
             {size = size, align = ({[0] = "left", "center", "right"})
                                   [l.align],
              colour = F.series_colour(c.theme, spec.group_of[i])})
    end
  end
end

local function draw_arrows(c, spec)
  for _, k in ipairs(spec.arrows) do
    local p, q = spec.points[k[1]], spec.points[k[2]]
    local x0, y0, x1, y1 = c:px(p[1]), c:py(p[2]), c:px(q[1]), c:py(q[2])
    local length = math.sqrt((x1 - x0) ^ 2 + (y1 - y0) ^ 2)
    if finite(length) and length > 14 then  -- from rim to rim
      local ux, uy = (x1 - x0) / length * 7, (y1 - y0) / length * 7
      c:line(x0 + ux, y0 + uy, x1 - ux, y1 - uy,
             {width = 1.3, head = true, colour = c.theme.axis})
    end
  end
end

charts.scatter = function(c, spec, x, y, w, h)
  local xs, ys = {}, {}
  for _, p in ipairs(spec.points) do
    if finite(p[1]) and finite(p[2]) then
      xs[#xs + 1], ys[#ys + 1] = {p[1]}, {p[2]}
    end
  end
  if #xs == 0 then return empty(c, spec, x, y, w, h) end
  local air = spec.labels and 0.10 or 0.05
  local xlo, xhi = extent(xs)
  local ylo, yhi = extent(ys)
  xlo, xhi = airy(xlo, xhi, air)
  ylo, yhi = airy(ylo, yhi, air)
  local items = {}
  for k, name in ipairs(spec.group_names) do
    items[k] = {text = name, colour = F.series_colour(c.theme, k)}
  end
  axes(c, spec, x, y, w, h, {xlo = xlo, xhi = xhi, ylo = ylo, yhi = yhi,
                             items = items})
  draw_arrows(c, spec)
  if spec.labels then label_points(c, spec) end
  local dot = #spec.points <= 200 and 9 or #spec.points <= 2000 and 6 or 4
  local parts = {}
  for k = 1, math.max(1, #spec.group_names) do
    local rows = {}
    for i, p in ipairs(spec.points) do
      if spec.group_of[i] == k and finite(p[1]) and finite(p[2]) then
        rows[#rows + 1] = p
      end
    end
    if #rows > 0 then
      parts[#parts + 1] = string.format(
        "%s using 1:2 with points pt 7 ps %.3g lc rgb '%s' notitle",
        c:data(rows), c:points(dot), F.series_colour(c.theme, k))
    end
  end
  c:put("plot %s", table.concat(parts, ", \\\n     "))
end

---- heat maps ----

-- Words (or numbers from 0) along an axis of cells, one every `pitch` pixels:
-- every k-th of them so that `room` pixels are there for each that is shown.
-- Numbers go in steps of 1, 2, 5; words are thinned evenly.
local function thin(pitch, room, words)
  local step = math.max(1, math.ceil(room / pitch))
  if not words then
    local unit = 1
    while true do
      if unit >= step then return unit end
      if unit * 2 >= step then return unit * 2 end
      if unit * 5 >= step then return unit * 5 end
      unit = unit * 10
    end
  end
  return step
end

-- How the cells of a matrix are labelled in w x h pixels: for rows and cols
-- {size=, step=, texts=, upright=, room=}.
local function cell_labels(names, n, pitch, across)
  local texts = {}
  local size = math.max(9, math.min(TICK + 1, math.floor(pitch * 0.85)))
  local most = 9 * size
  local wide = 0
  for i = 1, n do
    texts[i] = F.fit(names and names[i] or tostring(i - 1), size, most)
    wide = math.max(wide, F.width(texts[i], size))
  end
  local line = size * 1.15
  if not across then
    return {texts = texts, size = size, room = wide,
            step = thin(pitch, line, names)}
  end
  -- columns: upright when all fit side by side, else reading upward
  if wide + 6 <= pitch or not names then
    return {texts = texts, size = size, room = size + 2, upright = true,
            step = thin(pitch, wide + 6, names)}
  end
  return {texts = texts, size = size, room = wide,
          step = thin(pitch, line, names)}
end

local function draw_row_labels(c, l, n, left, top, pitch)
  for i = 1, n, l.step do
    c:text(l.texts[i], left - 6, top + (i - 0.5) * pitch,
           {size = l.size, align = "right", colour = c.theme.ink})
  end
end

local function draw_col_labels(c, l, n, left, bottom, pitch)
  for i = 1, n, l.step do
    local x = left + (i - 0.5) * pitch
    if l.upright then
      c:text(l.texts[i], x, bottom + 6 + l.size / 2,
             {size = l.size, align = "center", colour = c.theme.ink})
    else
      c:text(l.texts[i], x, bottom + 6,
             {size = l.size, align = "right", angle = 90,
              colour = c.theme.ink})
    end
  end
end

-- The cells themselves; returns the plot command, which must come last. Row 1
-- is drawn at the top. An image of one row or column is none to gnuplot:
-- those cells are boxes. (PNG has whole pixels; in SVG and PDF an image would
-- be smoothed by the viewer, so each cell is a rectangle there.)
local function cells(c, rows, n_rows, n_cols, palette, lo, hi)
  c:ranges(-0.5, n_cols - 0.5, n_rows - 0.5, -0.5)
  c:palette(palette, lo, hi)
  c:put("set border 31 lw 1 lc rgb '%s'", c.theme.axis)
  local a = c.area
  c:rectangle(a.left, a.top, a.right, a.bottom, c.theme.panel)
  if n_rows > 1 and n_cols > 1 then
    return string.format("plot %s matrix with image%s notitle", c:data(rows),
      (c.format == "png" or c.format == "sixel") and "" or " pixels")
  end
  local boxes = {}
  for i = 1, n_rows do
    for j = 1, n_cols do
      if finite(rows[i][j]) then
        boxes[#boxes + 1] = {j - 1, i - 1, j - 1.5, j - 0.5, i - 1.5, i - 0.5,
                             rows[i][j]}
      end
    end
  end
  if #boxes == 0 then return "plot NaN notitle" end
  return string.format("plot %s using 1:2:3:4:5:6:7 with boxxyerror fillstyle "
                       .. "solid noborder fc palette notitle", c:data(boxes))
end

-- The range of colours: symmetric when signed.
local function colour_range(spec)
  if spec.range then return spec.range[1], spec.range[2] end
  local lo, hi = extent(spec.rows)
  if not lo then return 0, 1 end
  if spec.scale == "diverging" then
    local m = math.max(math.abs(lo), math.abs(hi))
    if m == 0 then m = 1 end
    return -m, m
  end
  if lo == hi then hi = lo + (lo ~= 0 and math.abs(lo) or 1) end
  return lo, hi
end
F.colour_range = colour_range

local function palette_of(spec)
  return spec.palette or (spec.scale == "diverging" and "rdbu" or "viridis")
end
F.palette_of = palette_of

-- Wide enough for the title, too.
local function at_least(spec, w, h)
  local title = spec.title and F.width(spec.title, TITLE) + 2 * PAD + 4 or 0
  return math.ceil(math.max(w, 240, math.min(title, 1000))), math.ceil(h)
end

-- A cell's width and height that one would like: square, and neither tiny
-- nor so large that few look silly; with words in them, fit for words.
local function liked_cell(spec)
  local n, m = spec.n_rows, spec.n_cols
  if spec.texts then
    local wide = 0
    for _, row in ipairs(spec.texts) do
      wide = math.max(wide, widest(row, 13))
    end
    return math.max(40, math.min(wide + 12, 120, 1300 / m)),
           math.max(12, math.min(math.max(26, 140 / n), 1100 / n))
  end
  local ratio = m / n
  if ratio > 4 then return 720 / m, math.max(14, math.min(40, 260 / n)) end
  if ratio < 0.25 then return math.max(14, math.min(40, 260 / m)), 640 / n end
  local cell = math.min(math.max(56, 200 / math.min(m, n)), 640 / m, 640 / n)
  return cell, cell
end

-- ORDER heatmap layout: also charts.heatmap
sizes.heatmap = function(spec)
  local n, m = spec.n_rows, spec.n_cols
  if n == 0 or m == 0 then return usual_size() end
  local cw, ch = liked_cell(spec)
  local lo, hi = F.colour_range(spec)
  local row_l = cell_labels(spec.row_names, n, ch, false)
  local col_l = cell_labels(spec.col_names, m, cw, true)
  return at_least(spec,
    PAD + (spec.ylabel and 24 or 0) + row_l.room + 8 + m * cw
      + F.colourbar_width(lo, hi, spec.label) + PAD,
    PAD + heading_height(spec) + n * ch + col_l.room + 10
      + (spec.xlabel and 24 or 0) + PAD)
end

local function cell_texts(c, spec, lo, hi, pitch_x, pitch_y)
  local size = math.max(8, math.min(13, math.floor(pitch_y * 0.6)))
  if pitch_y < 11 or pitch_x < 16 then return end
  local palette = palette_of(spec)
  for i = 1, spec.n_rows do
    for j = 1, spec.n_cols do
      local v, text = spec.rows[i][j], spec.texts[i][j]
      if text and text ~= "" then
        local u = finite(v) and (v - lo) / (hi - lo) or 0
        c:text(F.fit(text, size, pitch_x - 4),
               c.area.left + (j - 0.5) * pitch_x,
               c.area.top + (i - 0.5) * pitch_y,
               {size = size, align = "center",
                colour = finite(v) and F.ink_on(palette, u)
                         or c.theme.muted})
      end
    end
  end
end

-- The largest area of n_rows x n_cols square cells in w x h, or all of it
-- when the matrix is too long for squares.
local function squared(n_rows, n_cols, w, h)
  local ratio = n_cols / n_rows
  if ratio > 4 or ratio < 0.25 then return w, h end
  local cell = math.min(w / n_cols, h / n_rows)
  return cell * n_cols, cell * n_rows
end

charts.heatmap = function(c, spec, x, y, w, h)
  local n, m = spec.n_rows, spec.n_cols
  if n == 0 or m == 0 then return empty(c, spec, x, y, w, h) end
  local lo, hi = colour_range(spec)
  local bar = F.colourbar_width(lo, hi, spec.label)
  local top = y + PAD + heading_height(spec)
  local below = PAD + (spec.xlabel and 24 or 0)
  local beside = PAD + (spec.ylabel and 24 or 0)
  local most_h = y + h - below - top
  -- Words take room from cells, and cells decide the words' size: twice
  -- round is enough.
  local row_l, col_l
  local aw, ah = w - beside - bar - PAD, most_h
  for _ = 1, 2 do
    row_l = cell_labels(spec.row_names, n, ah / n, false)
    col_l = cell_labels(spec.col_names, m, aw / m, true)
    aw = math.max(20, w - beside - row_l.room - 8 - bar - PAD)
    ah = math.max(20, most_h - col_l.room - 10)
    if not spec.texts then aw, ah = squared(n, m, aw, ah) end
  end
  local left = x + beside + row_l.room + 8
  c:panel(left, top, left + aw, top + ah)
  heading(c, spec, x + PAD, y + PAD, w - 2 * PAD)
  local command = cells(c, spec.rows, n, m, palette_of(spec), lo, hi)
  draw_row_labels(c, row_l, n, left, top, ah / n)
  draw_col_labels(c, col_l, m, left, top + ah, aw / m)
  local bar_h = math.min(ah, 340)
  c:colourbar(left + aw + 14, top + (ah - bar_h) / 2,
              top + (ah + bar_h) / 2, lo, hi, spec.label)
  if spec.xlabel then
    c:text(spec.xlabel, left + aw / 2, top + ah + col_l.room + 24,
           {size = LABEL, align = "center", colour = c.theme.muted})
  end
  if spec.ylabel then
    c:text(F.fit(spec.ylabel, LABEL, ah + 80), x + PAD + 7, top + ah / 2,
           {size = LABEL, align = "center", angle = 90,
            colour = c.theme.muted})
  end
  if spec.texts then cell_texts(c, spec, lo, hi, aw / m, ah / n) end
  c:put("%s", command)
end

---- attention: small multiples over tokens ----

-- Columns and rows of panels: as wide as a page allows, no lonely last one
-- where it can be helped.
local function panel_columns(n)
  if n <= 3 then return n end
  if n == 4 then return 2 end
  if n <= 9 then return 3 end
  return math.min(6, math.ceil(math.sqrt(n)))
end

local function attention_plan(spec)
  local n = #spec.heads
  local columns = math.max(1, panel_columns(n))
  local longest = math.max(spec.n_query, spec.n_key, 1)
  local panel
  if n == 1 then
    panel = math.max(360, math.min(760, longest * 18))
  else
    panel = math.max(columns > 3 and 170 or 230,
                     math.min(300, longest * 12))
  end
  return columns, math.ceil(n / columns), panel
end

local GAP <const> = 14              -- between panels

-- ORDER attention layout: also charts.attention
sizes.attention = function(spec)
  local n, n_query, n_key = #spec.heads, spec.n_query, spec.n_key
  if n == 0 or n_query == 0 or n_key == 0 then return usual_size() end
  local columns, rows, panel = attention_plan(spec)
  local cell = panel / math.max(n_query, n_key)
  local row_l = cell_labels(spec.query_names, n_query, cell, false)
  local col_l = cell_labels(spec.key_names, n_key, cell, true)
  return at_least(spec,
    PAD + 24 + row_l.room + 8 + columns * n_key * cell + (columns - 1) * GAP
      + F.colourbar_width(0, 1, "attention") + PAD,
    PAD + heading_height(spec) + rows * (n_query * cell + (n > 1 and 20 or 0))
      + (rows - 1) * GAP + col_l.room + 8 + 24 + PAD)
end

-- Where all is zero above the diagonal the model could not look: leave those
-- cells out (grey), so that a causal mask does not pass for a low weight.
local function masked(rows, n_query, n_key)
  local shift = n_key - n_query
  for q = 1, n_query do
    for k = q + shift + 1, n_key do
      if rows[q][k] ~= 0 then return rows end
    end
  end
  local out = {}
  for q = 1, n_query do
    out[q] = {}
    for k = 1, n_key do
      out[q][k] = k > q + shift and 0 / 0 or rows[q][k]
    end
  end
  return out
end

charts.attention = function(c, spec, x, y, w, h)
  local n, n_query, n_key = #spec.heads, spec.n_query, spec.n_key
  if n == 0 or n_query == 0 or n_key == 0 then
    return empty(c, spec, x, y, w, h)
  end
  local columns, rows = attention_plan(spec)
  local caption = n > 1 and 20 or 0
  local bar = F.colourbar_width(0, 1, "attention")
  local top = y + PAD + heading_height(spec)
  local row_l, col_l
  local pw = (w - bar - 2 * PAD - 24) / columns
  local ph = (y + h - top - PAD - 24) / rows
  for _ = 1, 2 do
    row_l = cell_labels(spec.query_names, n_query, ph / n_query, false)
    col_l = cell_labels(spec.key_names, n_key, pw / n_key, true)
    pw = (w - PAD - 24 - row_l.room - 8 - bar - PAD
          - (columns - 1) * GAP) / columns
    ph = (y + h - PAD - 24 - col_l.room - 8 - top
          - (rows - 1) * GAP) / rows - caption
    pw, ph = math.max(pw, 10), math.max(ph, 10)
    local cell = math.min(pw / n_key, ph / n_query)
    pw, ph = cell * n_key, cell * n_query
  end
  local left = x + PAD + 24 + row_l.room + 8
  local block_w = columns * pw + (columns - 1) * GAP
  local block_h = rows * (ph + caption) + (rows - 1) * GAP
  for i, head in ipairs(spec.heads) do
    local col, row = (i - 1) % columns, (i - 1) // columns
    local pl = left + col * (pw + GAP)
    local pt = top + row * (ph + caption + GAP) + caption
    c:panel(pl, pt, pl + pw, pt + ph)
    if i == 1 then
      heading(c, spec, x + PAD, y + PAD, w - 2 * PAD)
      c:text(spec.ylabel or "query (from)", x + PAD + 7, top + block_h / 2,
             {size = LABEL, align = "center", angle = 90,
              colour = c.theme.muted})
      c:text(spec.xlabel or "key (attended to)", left + block_w / 2,
             math.min(y + h - PAD - 4, top + block_h + col_l.room + 24),
             {size = LABEL, align = "center", colour = c.theme.muted})
    end
    if n > 1 then
      c:text(F.fit(head.name, TICK, pw), pl, pt - 10, {size = TICK})
    end
    local command = cells(c, masked(head.rows, n_query, n_key), n_query,
                          n_key, spec.palette or "blues", 0, 1)
    if col == 0 then draw_row_labels(c, row_l, n_query, pl, pt,
                                     ph / n_query) end
    if i + columns > n then
      draw_col_labels(c, col_l, n_key, pl, pt + ph, pw / n_key)
    end
    if i == n then
      local bar_h = math.min(block_h, 260)
      c:colourbar(left + block_w + 14, top + (block_h - bar_h) / 2,
                  top + (block_h + bar_h) / 2, 0, 1, "attention")
    end
    c:put("%s", command)
  end
end

---- bars ----

sizes.bar = function(spec)
  if spec.horizontal then
    return 760, math.floor(math.min(1400, 130 + #spec.values * 30))
  end
  return math.floor(math.max(520, math.min(1400, 160 + #spec.values * 44))),
         520
end

-- Long names are read lying down: then the bars lie, too.
local function bars_lie(spec, w)
  if spec.horizontal ~= nil then return spec.horizontal end
  return spec.labels ~= nil
    and widest(spec.labels, TICK) + 10 > (w - 100) / #spec.values
end
F.bars_lie = bars_lie

local function bar_extent(spec)
  local lo, hi = 0, 0
  for i, v in ipairs(spec.values) do
    local e = spec.errors and spec.errors[i] or 0
    if finite(v) then
      e = finite(e) and e or 0
      lo, hi = math.min(lo, v - e), math.max(hi, v + e)
    end
  end
  if lo == hi then hi = 1 end
  local span = hi - lo
  return lo < 0 and lo - 0.06 * span or 0, hi > 0 and hi + 0.06 * span or 0
end

local function bar_value_texts(c, spec, lie)
  for i, v in ipairs(spec.values) do
    local text = spec.texts[i]
    if finite(v) and text then
      local along = lie and c:px(v) or c:py(v)
      local out = v < 0 and -6 or 6
      if lie then
        c:text(text, along + out, c:py(i - 1),
               {size = TICK, align = v < 0 and "right" or "left",
                colour = c.theme.muted})
      else
        c:text(text, c:px(i - 1), along - out * 1.6,
               {size = TICK, align = "center", colour = c.theme.muted})
      end
    end
  end
end

charts.bar = function(c, spec, x, y, w, h)
  local n = #spec.values
  if n == 0 then return empty(c, spec, x, y, w, h) end
  local lie = bars_lie(spec, w)
  local lo, hi = bar_extent(spec)
  local names = spec.labels
  local size = TICK
  local o
  if lie then
    if spec.texts then hi = hi + 0.10 * (hi - lo) end
    o = {xlo = lo, xhi = hi, ylo = n - 0.4, yhi = -0.6, yticks = false,
         ygrid = false, left = names and
           math.min(220, widest(names, size)) + 8 or 30}
  else
    o = {xlo = -0.7, xhi = n - 0.3, ylo = lo, yhi = hi, xticks = false,
         xgrid = false, bottom = 20}
  end
  axes(c, spec, x, y, w, h, o)
  local pitch = lie and math.abs(c:py(1) - c:py(0)) or c:px(1) - c:px(0)
  local room = lie and size * 1.2
    or (names and widest(names, size) + 6 or 30)
  local step = thin(pitch, room, names)
  for i = 1, n, step do
    local text = names and names[i] or tostring(i - 1)
    if lie then
      c:text(F.fit(text, size, 220), c.area.left - 8, c:py(i - 1),
             {size = size, align = "right"})
    else
      c:text(text, c:px(i - 1), c.area.bottom + 14,
             {size = size, align = "center"})
    end
  end
  local boxes, whiskers = {}, {}
  for i, v in ipairs(spec.values) do
    local at = i - 1
    if finite(v) then
      boxes[#boxes + 1] = lie
        and {v / 2, at, math.min(0, v), math.max(0, v), at - 0.36, at + 0.36}
        or {at, v / 2, at - 0.36, at + 0.36, math.min(0, v), math.max(0, v)}
      local e = spec.errors and spec.errors[i]
      if e and finite(e) then
        for _, k in ipairs {{0, -e, 0, 2 * e}, {-0.06, -e, 0.12, 0},
                            {-0.06, e, 0.12, 0}} do   -- stem and two caps
          whiskers[#whiskers + 1] = lie and {v + k[2], at + k[1], k[4], k[3]}
                                    or {at + k[1], v + k[2], k[3], k[4]}
        end
      end
    end
  end
  if spec.texts then bar_value_texts(c, spec, lie) end
  if lo < 0 then
    if lie then c:line(c:px(0), c.area.top, c:px(0), c.area.bottom)
    else c:line(c.area.left, c:py(0), c.area.right, c:py(0)) end
  end
  local parts = {"NaN notitle"}
  if #boxes > 0 then
    parts = {string.format("%s using 1:2:3:4:5:6 with boxxyerror fillstyle "
                           .. "solid 0.85 noborder fc rgb '%s' notitle",
                           c:data(boxes), c.theme.series[1])}
  end
  if #whiskers > 0 then
    parts[2] = string.format("%s using 1:2:3:4 with vectors nohead lw 1.4 "
                             .. "lc rgb '%s' notitle", c:data(whiskers),
                             c.theme.ink)
  end
  c:put("plot %s", table.concat(parts, ", \\\n     "))
end

---- histogram ----

sizes.histogram = usual_size

charts.histogram = function(c, spec, x, y, w, h)
  if #spec.counts == 0 then return empty(c, spec, x, y, w, h) end
  local top = 1
  for _, n in ipairs(spec.counts) do top = math.max(top, n) end
  local k, width = #spec.counts, spec.width
  axes(c, spec, x, y, w, h,
       {xlo = spec.lo - 0.02 * k * width, xhi = spec.lo + 1.02 * k * width,
        ylo = 0, yhi = top * 1.06, xgrid = false})
  local boxes = {}
  for i, n in ipairs(spec.counts) do
    local a = spec.lo + (i - 1) * width
    boxes[i] = {a + width / 2, n / 2, a, a + width, 0, n}
  end
  c:put("plot %s using 1:2:3:4:5:6 with boxxyerror fillstyle solid 0.85 "
        .. "border lc rgb '%s' fc rgb '%s' lw 0.6 notitle", c:data(boxes),
        c.theme.paper, c.theme.series[1])
end

---- lines ----

sizes.line = usual_size

local MOST_ROWS <const> = 4000      -- of a line

-- Rows {x, y, lo, hi} as they look on a page: of each k neighbours the lowest
-- and the highest, in their order, with the outermost lo and hi. (Cairo takes
-- a minute for a dense line of 200 000 points.)
local function thin_rows(rows)
  local k = math.ceil(#rows / (MOST_ROWS / 2))
  if #rows <= MOST_ROWS then return rows end
  local out = {}
  for first = 1, #rows, k do
    local low, high, lo, hi = nil, nil, math.huge, -math.huge
    for i = first, math.min(first + k - 1, #rows) do
      local r = rows[i]
      if finite(r[2]) then
        if not low or r[2] < rows[low][2] then low = i end
        if not high or r[2] > rows[high][2] then high = i end
      end
      if finite(r[3]) then lo = math.min(lo, r[3]) end
      if finite(r[4]) then hi = math.max(hi, r[4]) end
    end
    if not low then
      out[#out + 1] = rows[first]   -- a gap
    else
      for _, i in ipairs {math.min(low, high), math.max(low, high)} do
        out[#out + 1] = {rows[i][1], rows[i][2], lo, hi}
      end
    end
  end
  return out
end

charts.line = function(c, spec, x, y, w, h)
  local all, xs = {}, {}
  for i, s in ipairs(spec.series) do
    all[#all + 1] = s.y
    all[#all + 1] = s.lo
    all[#all + 1] = s.hi
    xs[i] = spec.x
  end
  local ylo, yhi = extent(all)
  local xlo, xhi = extent(xs)
  if not ylo or not xlo then return empty(c, spec, x, y, w, h) end
  if xlo == xhi then xlo, xhi = airy(xlo, xhi, 0.5) end
  ylo, yhi = airy(ylo, yhi, 0.06)
  local items = {}
  for k, s in ipairs(spec.series) do
    if s.name then
      items[#items + 1] = {text = s.name, mark = "line",
                           colour = F.series_colour(c.theme, k)}
    end
  end
  axes(c, spec, x, y, w, h,
       {xlo = xlo, xhi = xhi, ylo = ylo, yhi = yhi, items = items,
        xgrid = false})
  if ylo < 0 and yhi > 0 then
    c:line(c.area.left, c:py(0), c.area.right, c:py(0))
  end
  local under, over = {}, {}
  for k, s in ipairs(spec.series) do
    local colour = F.series_colour(c.theme, k)
    local rows, bare, last = {}, {}, #s.y
    for i, v in ipairs(s.y) do
      rows[i] = {spec.x[i], v, s.lo and s.lo[i] or v, s.hi and s.hi[i] or v}
      local alone = not (i > 1 and finite(s.y[i - 1]))
                    and not (i < last and finite(s.y[i + 1]))
      if alone and finite(v) then bare[#bare + 1] = {spec.x[i], v} end
    end
    local d = c:data(thin_rows(rows))
    if s.lo then
      under[#under + 1] = string.format("%s using 1:3:4 with filledcurves "
        .. "fillstyle transparent solid 0.18 noborder fc rgb '%s' notitle",
        d, colour)
    end
    over[#over + 1] = string.format("%s using 1:2 with lines lw 2.2 "
                                    .. "lc rgb '%s' notitle", d, colour)
    if #bare > 0 and #bare <= MOST_ROWS then    -- alone between gaps
      over[#over + 1] = string.format("%s using 1:2 with points pt 7 ps "
        .. "%.3g lc rgb '%s' notitle", c:data(bare), c:points(6), colour)
    end
  end
  table.move(over, 1, #over, #under + 1, under)
  c:put("plot %s", table.concat(under, ", \\\n     "))
end

-- After eight series the colours begin again.
function F.series_colour(theme, k)
  return theme.series[(k - 1) % #theme.series + 1]
end

---- grid ----

local MOST_PIXELS <const> = 2400

sizes.grid = function(spec)
  local wide, high = 300, 240
  for _, p in ipairs(spec.plots) do
    local w, h = P.size_of(p)
    wide, high = math.max(wide, w), math.max(high, h)
  end
  local rows = math.max(1, math.ceil(#spec.plots / spec.columns))
  local k = math.min(1, math.max(0.6, 1500 / (wide * spec.columns)))
  local w = math.min(MOST_PIXELS, wide * k * spec.columns)
  local h = math.min(MOST_PIXELS, high * k * rows)
  return math.floor(w), math.floor(h + (spec.title and 40 or 0))
end

charts.grid = function(c, spec, x, y, w, h)
  if #spec.plots == 0 then return empty(c, spec, x, y, w, h) end
  local head = spec.title and 40 or 0
  if spec.title then
    c:later(function()
      local size = TITLE + 2
      while size > 11 and F.width(spec.title, size) > w - 2 * PAD do
        size = size - 1
      end
      c:text(F.fit(spec.title, size, w - 2 * PAD), x + PAD, y + PAD + 12,
             {size = size})
    end)
  end
  local columns = spec.columns
  local rows = math.ceil(#spec.plots / columns)
  local cw, ch = w / columns, (h - head) / rows
  for i, p in ipairs(spec.plots) do
    local inner = P.spec_of(p)
    charts[inner.kind](c, inner, x + (i - 1) % columns * cw,
                       y + head + (i - 1) // columns * ch, cw, ch)
  end
end

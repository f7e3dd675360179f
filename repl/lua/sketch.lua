-- sketch.lua - plots drawn with letters, for terminals without pictures
--
-- Heat maps and attention are coloured half-blocks (terminal.c), or shades
-- where there are no colours; bars are bars; lines and points are dots of
-- braille, eight a letter. Nothing here needs gnuplot.

local _, _, _, half <const> = ...
local P <const> = half.plot
P.figure = P.figure or {}
local F <const> = P.figure

local sketches = {}

local function pad(text, columns, right)
  local spare = math.max(0, columns - P.columns(text))
  return right and text .. (" "):rep(spare) or (" "):rep(spare) .. text
end

-- Text of at most so many columns, with an ellipsis where it was cut.
local function cut(text, columns)
  if P.columns(text) <= columns then return text end
  local out = ""
  for _, code in utf8.codes(text) do
    local more = out .. utf8.char(code)
    if P.columns(more) > columns - 1 then break end
    out = more
  end
  return out .. "…"
end

local function widest(list, most)
  local w = 0
  for _, t in ipairs(list) do w = math.max(w, P.columns(t)) end
  return math.min(w, most)
end

local function lines_of(text)
  local out = {}
  for line in text:gmatch "([^\n]*)\n" do out[#out + 1] = line end
  return out
end

---- cells ----

-- Means of blocks, so that at most h x w cells are left.
local function shrink(rows, h, w)
  local n, m = #rows, #rows[1]
  if n <= h and m <= w then return rows end
  h, w = math.min(h, n), math.min(w, m)
  local out = {}
  for i = 1, h do
    out[i] = {}
    local i0, i1 = (i - 1) * n // h + 1, i * n // h
    for j = 1, w do
      local sum, count = 0, 0
      for a = i0, i1 do
        for b = (j - 1) * m // w + 1, j * m // w do
          if F.finite(rows[a][b]) then
            sum, count = sum + rows[a][b], count + 1
          end
        end
      end
      out[i][j] = count > 0 and sum / count or 0 / 0
    end
  end
  return out
end

local SHADES <const> = {[0] = " ", "░", "▒", "▓", "█"}

-- Lines of cells, each `wide` columns; tall: a line a row (else two rows).
local function cell_lines(rows, palette, lo, hi, wide, tall, colours)
  local function place(v) return (v - lo) / (hi - lo) end
  if colours == 0 then
    local out = {}
    for i, row in ipairs(rows) do
      local line = {}
      for j, v in ipairs(row) do
        local u = F.finite(v) and math.max(0, math.min(1, place(v))) or 0
        line[j] = SHADES[math.floor(u * 4 + 0.5)]:rep(wide)
      end
      out[i] = table.concat(line)
    end
    return out
  end
  local bytes = {}
  for _, row in ipairs(rows) do
    local line = {}
    for j, v in ipairs(row) do
      local dot = F.finite(v)
        and string.char(F.colour_at(palette, place(v))) or "\x80\x80\x80"
      line[j] = dot:rep(wide)
    end
    local all = table.concat(line)
    bytes[#bytes + 1] = tall and all .. all or all
  end
  local height = tall and 2 * #rows or #rows
  return lines_of(P.blocks(table.concat(bytes), wide * #rows[1], height,
                           colours))
end

-- One matrix with a name before each row, where there is room for both.
local function named_cells(rows, names, palette, lo, hi, columns, height,
                           colours)
  local n, m = #rows, #rows[1]
  local w = names and widest(names, 16) or #tostring(n - 1)
  if 2 * m + w + 2 > columns or n > math.max(height - 5, 40) then
    return cell_lines(shrink(rows, 2 * (height - 4), columns - 1), palette,
                      lo, hi, 1, false, colours)
  end
  local out = cell_lines(rows, palette, lo, hi, 2, true, colours)
  for i, line in ipairs(out) do
    out[i] = pad(cut(names and names[i] or tostring(i - 1), w), w) .. " "
             .. line
  end
  return out
end

sketches.heatmap = function(spec, columns, height, colours)
  if spec.n_rows == 0 or spec.n_cols == 0 then return {"no data"} end
  local lo, hi = F.colour_range(spec)
  local out = named_cells(spec.rows, spec.row_names, F.palette_of(spec), lo,
                          hi, columns, height, colours)
  out[#out + 1] = string.format("from %.4g to %.4g%s", lo, hi,
    spec.label and " " .. spec.label or "")
  return out
end

-- Panels beside each other as far as the line goes.
sketches.attention = function(spec, columns, height, colours)
  if #spec.heads == 0 or spec.n_query == 0 or spec.n_key == 0 then
    return {"no data"}
  end
  if #spec.heads == 1 then
    return named_cells(spec.heads[1].rows, spec.query_names, "magma", 0, 1,
                       columns, height, colours)
  end
  local out = {}
  local wide = math.min(spec.n_key, columns - 1)
  local across = math.max(1, (columns + 2) // (wide + 2))
  for first = 1, #spec.heads, across do
    local captions, block = {}, {}
    for k = first, math.min(first + across - 1, #spec.heads) do
      local head = spec.heads[k]
      captions[#captions + 1] = pad(cut(head.name, wide), wide, true)
      local panel = cell_lines(shrink(head.rows, 2 * height, wide), "magma",
                               0, 1, 1, false, colours)
      for i, line in ipairs(panel) do
        block[i] = block[i] and block[i] .. "  " .. line or line
      end
    end
    out[#out + 1] = table.concat(captions, "  ")
    table.move(block, 1, #block, #out + 1, out)
  end
  return out
end

---- bars ----

local EIGHTHS <const> = {[0] = "", "▏", "▎", "▍", "▌", "▋", "▊", "▉"}

local function bar_of(v, most, columns)
  if not F.finite(v) or most <= 0 then return "" end
  local eighths = math.floor(math.abs(v) / most * columns * 8 + 0.5)
  if v < 0 then return ("░"):rep((eighths + 4) // 8) end
  return ("█"):rep(eighths // 8) .. EIGHTHS[eighths % 8]
end

local function bar_lines(values, names, texts, columns)
  local most, out = 0, {}
  for _, v in ipairs(values) do
    if F.finite(v) then most = math.max(most, math.abs(v)) end
  end
  local w, tw = widest(names, 24), widest(texts, 16)
  for i, v in ipairs(values) do
    out[i] = pad(cut(names[i], w), w) .. " " .. pad(cut(texts[i], tw), tw)
             .. " " .. bar_of(v, most, math.max(4, columns - w - tw - 4))
  end
  return out
end

sketches.bar = function(spec, columns)
  if #spec.values == 0 then return {"no data"} end
  local names, texts = {}, {}
  for i, v in ipairs(spec.values) do
    names[i] = spec.labels and spec.labels[i] or tostring(i - 1)
    texts[i] = spec.texts and spec.texts[i] or string.format("%.3g", v)
  end
  return bar_lines(spec.values, names, texts, columns)
end

sketches.histogram = function(spec, columns, height)
  if #spec.counts == 0 then return {"no data"} end
  local each = math.ceil(#spec.counts / math.max(5, height - 5))
  local counts, names, texts = {}, {}, {}
  for i = 1, #spec.counts, each do
    local sum, k = 0, #counts + 1
    for j = i, math.min(i + each - 1, #spec.counts) do
      sum = sum + spec.counts[j]
    end
    counts[k], texts[k] = sum, tostring(sum)
    names[k] = string.format("%.4g", spec.lo + (i - 1) * spec.width)
  end
  return bar_lines(counts, names, texts, columns)
end

---- dots of braille ----

-- Bits of U+2800 by column (0, 1) and row (0..3) of a letter.
local BRAILLE <const> = {[0] = {[0] = 1, 2, 4, 64}, {[0] = 8, 16, 32, 128}}

local function canvas(w, h)
  local bits = {}
  for y = 0, h - 1 do bits[y] = {} end
  local function dot(x, y)      -- 0 <= x < 2 w, 0 <= y < 4 h
    local row = bits[y // 4]
    if row and x >= 0 and x < 2 * w then
      row[x // 2] = (row[x // 2] or 0) | BRAILLE[x % 2][y % 4]
    end
  end
  local function lines()
    local out = {}
    for y = 0, h - 1 do
      local line = {}
      for x = 0, w - 1 do
        line[x + 1] = utf8.char(0x2800 + (bits[y][x] or 0))
      end
      out[y + 1] = table.concat(line)
    end
    return out
  end
  return dot, lines
end

-- Numbers of the y axis before the first and the last line, of x below.
local function frame(lines, xlo, xhi, ylo, yhi)
  local top, bottom = string.format("%.3g", yhi), string.format("%.3g", ylo)
  local w = math.max(#top, #bottom)
  local wide = P.columns(lines[1])
  for i, line in ipairs(lines) do
    lines[i] = pad(i == 1 and top or i == #lines and bottom or "", w) .. " │"
               .. line
  end
  local left, right = string.format("%.3g", xlo), string.format("%.3g", xhi)
  lines[#lines + 1] = (" "):rep(w + 2) .. left
    .. pad(right, math.max(#right, wide - #left))
  return lines
end

local function limits(rows)
  local lo, hi = F.extent(rows)
  if lo and lo == hi then lo, hi = lo - 1, hi + 1 end
  return lo, hi
end

sketches.line = function(spec, columns, height)
  local ys, xs = {}, {}
  for k, s in ipairs(spec.series) do ys[k], xs[k] = s.y, spec.x end
  local ylo, yhi = limits(ys)
  local xlo, xhi = limits(xs)
  if not ylo or not xlo then return {"no data"} end
  local w, h = math.max(10, math.min(columns - 14, 100)),
               math.max(5, math.min(height - 6, 20))
  local dot, lines = canvas(w, h)
  for _, s in ipairs(spec.series) do
    local px, py
    for i, v in ipairs(s.y) do
      local x, y
      if F.finite(v) and F.finite(spec.x[i]) then
        x = math.floor((spec.x[i] - xlo) / (xhi - xlo) * (2 * w - 1) + 0.5)
        y = math.floor((yhi - v) / (yhi - ylo) * (4 * h - 1) + 0.5)
        local steps = px and math.max(math.abs(x - px), math.abs(y - py)) or 0
        for k = 0, steps do
          local u = steps > 0 and k / steps or 1
          dot(math.floor((px or x) + u * (x - (px or x)) + 0.5),
              math.floor((py or y) + u * (y - (py or y)) + 0.5))
        end
      end
      px, py = x, y
    end
  end
  return frame(lines(), xlo, xhi, ylo, yhi)
end

-- Points as letters, with their labels to the right where it is free.
sketches.scatter = function(spec, columns, height)
  local xs, ys = {}, {}
  for i, p in ipairs(spec.points) do
    if F.finite(p[1]) and F.finite(p[2]) then
      xs[#xs + 1], ys[#ys + 1] = {p[1]}, {p[2]}
    end
    if i > 100000 then break end
  end
  local xlo, xhi = limits(xs)
  local ylo, yhi = limits(ys)
  if not xlo then return {"no data"} end
  local w, h = math.max(20, math.min(columns - 14, 100)),
               math.max(8, math.min(height - 6, 24))
  local rows = {}
  for y = 0, h - 1 do rows[y] = {} end
  local function spot(p)
    if not (F.finite(p[1]) and F.finite(p[2])) then return nil end
    return math.floor((p[1] - xlo) / (xhi - xlo) * (w - 1) + 0.5),
           math.floor((yhi - p[2]) / (yhi - ylo) * (h - 1) + 0.5)
  end
  for i, p in ipairs(spec.points) do
    local x, y = spot(p)
    if x then rows[y][x] = ({"●", "○", "■", "□", "▲", "△"})
                           [(spec.group_of[i] - 1) % 6 + 1] end
  end
  for i, p in ipairs(spec.points) do
    local x, y = spot(p)
    local text = x and spec.labels and cut(spec.labels[i], 16) or ""
    local n = P.columns(text)
    for _, at in ipairs {x and x + 2 or 0, x and x - n - 1 or 0} do
      local free = n > 0 and at >= 0 and at + n <= w
      for k = at - 1, at + n do free = free and (rows[y][k] == nil
                                                 or k == x) end
      if free then
        rows[y][at] = text
        for k = at + 1, at + n - 1 do rows[y][k] = "" end
        break
      end
    end
  end
  local lines = {}
  for y = 0, h - 1 do
    local line = {}
    for x = 0, w - 1 do line[x + 1] = rows[y][x] or " " end
    lines[y + 1] = table.concat(line)
  end
  return frame(lines, xlo, xhi, ylo, yhi)
end

sketches.grid = function(spec, columns, height, colours)
  local out = {}
  for _, p in ipairs(spec.plots) do
    for line in P.sketch(P.spec_of(p), columns, height,
                         colours):gmatch "([^\n]*)\n" do
      out[#out + 1] = line
    end
  end
  return out
end

-- The whole, as text.
function P.sketch(spec, columns, height, colours)
  local lines = sketches[spec.kind](spec, columns, height, colours)
  if spec.title then table.insert(lines, 1, spec.title) end
  return table.concat(lines, "\n") .. "\n"
end

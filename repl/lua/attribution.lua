--[[ attribution.lua - direct logit attribution: which part wrote the logit

Called with (qkv, doc, class, half). The last residual is a sum of what the
embedding, each head and each MLP added; the logit is linear in it once the
final norm's scale is taken as it was. So each part has a share, and the shares
sum to the logit. Elhage et al. 2021 (transformer-circuits.pub/2021/framework).
]]
local qkv <const>, doc <const>, class <const>, half <const> = ...
local check_options <const>, raise <const> = half.check_options, half.raise

local run <const> = class "run"
local attribution <const>, meta <const> = class "attribution"

-- A weight under its canonical name, or nil where the model has none.
local function weight(m, name)
  local there, w = pcall(m.weight, m, name)
  return there and w or nil
end

-- The column of the unembedding that a token's logit is read with, [d_model],
-- and its bias.
local function column(m, token)
  local id = type(token) == "string" and m:token(token) or token
  local b = weight(m, "b_U")
  return m.unembed:at{vocab = id}:to "f32", b and b[id] or 0
end

-- What is read from the last residual x at `pos`: the metric is x . direction
-- + constant, the final norm's scale being that of the run.
local function reader(r, metric, pos)
  local m <const>, c <const> = r.model, r.model.config
  local w, constant = column(m, metric.a)
  if metric.b ~= nil then
    local other, bias = column(m, metric.b)
    w, constant = w - other, constant - bias
  end
  local gain <const>, bias <const> = weight(m, "ln_final.w"),
                                     weight(m, "ln_final.b")
  if not gain then return w, constant end
  if bias then constant = constant + (bias * w):sum() end
  local direction = gain * w
  if c.norm == "layer" then direction = direction - direction:mean() end
  return direction / r("ln_final.scale"):at{pos = pos, [1] = 0}, constant
end

-- [head, d_head]: what one unit of a head's z adds to the metric.
local function head_reader(m, layer, direction)
  return qkv.einsum("head d_head d_model, d_model -> head d_head",
                    m:weight(("blocks.%d.attn.W_O"):format(layer)), direction)
end

-- [head]
local function heads_of(r, layer, pos, direction)
  local u = head_reader(r.model, layer, direction)
  return (r("z", layer):at{pos = pos} * u):sum "d_head"
end

-- [source position]: pattern x (value . reader), summed over heads.
local function sources_of(r, layer, pos, direction)
  local c <const> = r.model.config
  local group <const> = c.n_heads // c.n_kv_heads
  local u <const>, v <const> = head_reader(r.model, layer, direction),
                               r("v", layer)
  local pattern <const> = r("pattern", layer):at{query = pos}
  local sum
  for h = 0, c.n_heads - 1 do
    local share = qkv.einsum("pos, pos d_head, d_head -> pos",
      pattern:at{head = h}, v:at{kv_head = h // group}, u:at{head = h})
    sum = sum and sum + share or share
  end
  return sum
end

-- One number a layer of a site at `pos`.
local function by_layer(r, site, pos, direction)
  local list = {}
  for layer = 0, r.model.config.n_layers - 1 do
    list[layer + 1] = qkv.dot(r(site, layer):at{pos = pos}, direction)
  end
  return qkv.tensor(list, {axes = {"layer"}})
end

local ways <const> = {layer = true, head = true, pos = true}

run.dla = doc("run.dla", "r:dla(metric, {by=\"layer\"|\"head\"|\"pos\"}) -> d",
  "Direct logit attribution: what each part adds to a logit or a difference "
  .. "of two (qkv.logit_diff), the final norm's scale being that of the run. "
  .. "by \"layer\" (the default): d.attn and d.mlp [layer]; \"head\": d.heads "
  .. "[layer, head], d.mlp; \"pos\": d.pos [pos], what attention brought from "
  .. "each position, d.mlp. Also d.embed, d.bias, d.rest (attention's biases; "
  .. "what edits of the stream put in) and d.total, the metric, which is the "
  .. "sum of all. d:top(k), d:plot().\n"
  .. "> m:run({1, 2, 3}):dla(qkv.logit_diff(4, 5)).attn:size(\"layer\") == "
  .. "m.config.n_layers",
  function(r, metric, options)
    options = check_options("dla", options, {"by"})
    local by <const> = options.by or "layer"
    if not ways[by] then
      raise("dla: by = \"layer\", \"head\" or \"pos\" was expected, got %s",
            tostring(by))
    end
    if type(metric) ~= "table" or metric.kind ~= "logit_diff"
       or type(metric.a) == "table" then
      raise "dla: the metric must be qkv.logit_diff of tokens, which is linear"
    end
    local m <const>, c <const> = r.model, r.model.config
    if c.layout ~= "pre-norm" then
      raise("dla: %s normalises the stream itself, so that no part of it can "
            .. "be told from the others", c.family)
    end
    local pos <const> = metric.pos or -1
    local direction <const>, constant <const> = reader(r, metric, pos)
    local last <const> = r("resid_post", c.n_layers - 1):at{pos = pos}
    local first <const> = r("resid_pre", 0):at{pos = pos}
    local d = {by = by, run = r, metric = metric, bias = constant,
               embed = qkv.dot(first, direction),
               mlp = by_layer(r, "mlp_out", pos, direction),
               total = qkv.dot(last, direction) + constant}
    local attention
    if by == "layer" then
      d.attn = by_layer(r, "attn_out", pos, direction)
      attention = d.attn:sum()
    elseif by == "head" then
      local list = {}
      for layer = 0, c.n_layers - 1 do
        list[layer + 1] = heads_of(r, layer, pos, direction)
      end
      d.heads = qkv.stack(list, "layer")
      attention = d.heads:sum()
    else
      for layer = 0, c.n_layers - 1 do
        local part = sources_of(r, layer, pos, direction)
        d.pos = d.pos and d.pos + part or part
      end
      attention = d.pos:sum()
    end
    d.rest = d.total - d.bias - d.embed - d.mlp:sum() - attention
    return setmetatable(d, meta)
  end)

-- All parts: {name=, value=}.
local function parts_of(d)
  local list = {{name = "embed", value = d.embed},
                {name = "bias", value = d.bias},
                {name = "rest", value = d.rest}}
  local function add(t, format)
    for i = 0, #t - 1 do
      list[#list + 1] = {name = format:format(i), value = t[i]}
    end
  end
  add(d.mlp, "mlp %d")
  if d.by == "layer" then
    add(d.attn, "attn %d")
  elseif d.by == "head" then
    for layer = 0, #d.heads - 1 do
      add(d.heads[layer], ("L%dH%%d"):format(layer))
    end
  else
    local pieces = d.run.pieces
    for i = 0, #d.pos - 1 do
      list[#list + 1] = {name = ("from %d '%s'"):format(i, pieces[i + 1]),
                         value = d.pos[i]}
    end
  end
  return list
end

attribution.top = doc("attribution.top", "d:top(k) -> list",
  "The k parts with the largest share, either way: records {name=, value=}.\n"
  .. "> #m:run({1, 2, 3}):dla(qkv.logit_diff(4, 5), {by = \"head\"}):top(3) "
  .. "== 3",
  function(d, k)
    local list = parts_of(d)
    table.sort(list, function(a, b)
      local x, y = math.abs(a.value), math.abs(b.value)
      if x ~= y then return x > y end
      return a.name < b.name
    end)
    return table.move(list, 1, math.min(k or 10, #list), 1, {})
  end)

attribution.plot = doc("attribution.plot", "d:plot{title=, size=} -> plot",
  "Shares as bars by layer or position, or as a heat map of the heads.",
  function(d, options)
    local given = half.given(options)
    given.title = given.title or "Direct logit attribution by " .. d.by
    if d.by == "head" then
      given.scale, given.ylabel, given.xlabel = "diverging", "layer", "head"
      return qkv.plot.heatmap(d.heads, given)
    elseif d.by == "pos" then
      given.labels, given.ylabel = d.run.pieces, "logits"
      return qkv.plot.bar(d.pos, given)
    end
    local labels, values = {}, {}
    for i = 0, #d.attn - 1 do
      labels[2 * i + 1], values[2 * i + 1] = "attn " .. i, d.attn[i]
      labels[2 * i + 2], values[2 * i + 2] = "mlp " .. i, d.mlp[i]
    end
    given.labels, given.ylabel = labels, "logits"
    return qkv.plot.bar(qkv.tensor(values), given)
  end)

meta.__tostring = function(d)
  local parts = {("attribution by %s: %.4g ="):format(d.by, d.total)}
  for i, part in ipairs(attribution.top(d, 5)) do
    parts[i + 1] = ("%s %+.3g"):format(part.name, part.value)
  end
  return table.concat(parts, "  ") .. "  ..."
end

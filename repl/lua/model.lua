--[[ model.lua - what models and runs do in Lua

Called with (qkv, doc, class, half). Hidden states of texts, pooled, and one
position of every sequence of a batch: both are a few readings put together.
]]
local qkv <const>, doc <const>, class <const>, half <const> = ...

local model <const>, run <const> = class "model", class "run"
local check_options <const>, raise <const> = half.check_options, half.raise

run.stack = doc("run.stack", "r:stack(site, {layer=, pos=}) -> tensor",
  "One position (the last unless told otherwise) of each sequence of a batch, "
  .. "stacked: [seq, ...].\n"
  .. "> m:run({{1, 2}, {3}}):stack(\"resid_post\", {layer = 0})"
  .. ":size(\"seq\") == 2",
  function(r, site, options)
    options = check_options("stack", options, {"layer", "pos"})
    local parts = {}
    for i = 0, #r - 1 do
      local one = #r > 1 and r:seq(i) or r
      local t
      if options.layer then t = one(site, options.layer) else t = one(site) end
      parts[i + 1] = t:at{pos = options.pos or -1}
    end
    return qkv.stack(parts, "seq")
  end)

local pools <const> = {
  mean = function(t) return t:mean("pos") end,
  cls = function(t) return t:at{pos = 0} end,
  last = function(t) return t:at{pos = -1} end,
}

model.hidden = doc("model.hidden",
  "m:hidden(texts, {site=, layer=, pool=, normalize=}) -> tensor [n, d_model]",
  "One vector a text: a site (resid_post, or what leaves a post-norm block) "
  .. "of a layer (the last), pooled over positions: \"mean\" (the default), "
  .. "\"cls\", \"last\", or \"none\" for a list of [pos, d_model]. normalize "
  .. "= true makes lengths 1.\n"
  .. "> m:hidden({{1, 2}, {3}}):size(\"d_model\") == m.config.d_model",
  function(m, texts, options)
    options = check_options("hidden", options,
                            {"site", "layer", "pool", "normalize"})
    local site = options.site
    if not site then
      site = m.config.layout == "post-norm" and "normalized_resid_post"
             or "resid_post"
    end
    local layer, how = options.layer or -1, options.pool or "mean"
    if how ~= "none" and not pools[how] then
      raise("hidden: pool '%s' is not one of mean, cls, last, none",
            tostring(how))
    end
    local n_layers <const> = m.config.n_layers
    if math.type(layer) ~= "integer" or layer < -n_layers
       or layer >= n_layers then
      raise("hidden: layer %s of %d: layers run 0..%d", tostring(layer),
            n_layers, n_layers - 1)
    end
    local names <const> = m:sites(site)         -- one, or one a layer
    local name <const> = names[#names == 1 and 1
                               or layer % n_layers + 1]
    local r <const> = m:run(texts, {names = {name}, logits = false})
    local out = {}
    for i = 0, #r - 1 do
      local t = (#r > 1 and r:seq(i) or r)[name]
      if how ~= "none" then t = pools[how](t) end
      if options.normalize then
        local length = t:norm("d_model")        -- a number, or one a position
        if how == "none" then length = length:reshape(t.shape[1], 1) end
        t = t / length
      end
      out[i + 1] = how == "none" and t:clone() or t
    end
    return how == "none" and out or qkv.stack(out, "text")
  end)

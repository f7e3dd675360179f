--[[ sweep.lua - patching, ablation, and what they are measured by

Called with (qkv, doc, class, half). The work is half.sweep (repl/bind/sweep.c);
here is what is put where: another run's values, zeros, means, resamples.
]]
local qkv <const>, doc <const>, class <const>, half <const> = ...
local H <const> = half.sweep

local run <const> = class "run"
local sweep <const>, meta <const> = class "sweep"
local metric_meta <const> = {__name = "qkv.metric"}

local check_options <const>, raise <const>, class_of <const> =
  half.check_options, half.raise, half.class_of

local function check_run(fn, options, name)
  if class_of(options[name]) ~= "qkv.run" then
    raise("%s: option '%s' is a %s, a run was expected", fn, name,
      class_of(options[name]))
  end
  return options[name]
end

-- The sequences of a run, one by one.
local function sequences(r)
  local list = {}
  for i = 0, #r - 1 do list[i + 1] = #r > 1 and r:seq(i) or r end
  return list
end

---- metrics ----

local function new_metric(fields, options, fn)
  options = check_options(fn, options, {"pos"})
  fields.pos = options.pos
  return setmetatable(fields, metric_meta)
end

local function check_tokens(fn, ...)
  for i = 1, select("#", ...) do
    local t = select(i, ...)
    if type(t) ~= "string" and math.type(t) ~= "integer"
       and type(t) ~= "table" then
      raise("%s: token %d is a %s; a token's text, its id, or a list with "
             .. "one for each sequence was expected", fn, i, type(t))
    end
  end
end

qkv.logit_diff = doc("qkv.logit_diff", "qkv.logit_diff(a [, b] [, {pos=}]) "
  .. "-> metric", "The logit of token a as the next one minus that of b; "
  .. "tokens are texts or ids, or lists with one for each sequence of a batch. "
  .. "Without b: a's logit. Words in running text carry the space before "
  .. "them. pos: where (-1, the last position).\n"
  .. "> m:run({1, 2}):measure(qkv.logit_diff(3, 4)) == "
  .. "m:run({1, 2}):logit(3) - m:run({1, 2}):logit(4)",
  function(a, b, options)
    if type(b) == "table" and b.pos then b, options = nil, b end
    check_tokens("logit_diff", a)
    if b ~= nil then check_tokens("logit_diff", a, b) end
    return new_metric({kind = "logit_diff", a = a, b = b}, options,
                      "logit_diff")
  end)

local function of_token(kind)
  return function(a, options)
    check_tokens(kind, a)
    return new_metric({kind = kind, a = a}, options, kind)
  end
end

qkv.logprob = doc("qkv.logprob", "qkv.logprob(a [, {pos=}]) -> metric",
  "The natural logarithm of token a's probability as the next one; tokens as "
  .. "in qkv.logit_diff.\n> m:run({1, 2}):measure(qkv.logprob(3)) < 0",
  of_token "logprob")

qkv.prob = doc("qkv.prob", "qkv.prob(a [, {pos=}]) -> metric",
  "Token a's probability as the next one; tokens as in qkv.logit_diff.\n"
  .. "> m:run({1, 2}):measure(qkv.prob(3)) < 1",
  of_token "prob")

qkv.loss = doc("qkv.loss", "qkv.loss() -> metric",
  "The mean of -ln p(token) over a text, in nats.\n"
  .. "> m:run({1, 2, 3}):measure(qkv.loss()) > 0",
  function() return new_metric({kind = "loss"}, nil, "loss") end)

qkv.kl = doc("qkv.kl", "qkv.kl(r [, {pos=}]) -> metric",
  "The Kullback-Leibler divergence of the next-token distribution from that "
  .. "of run r, sum p_r ln(p_r / p), in nats.\n"
  .. "> m:run({1, 2}):measure(qkv.kl(m:run({1, 2}))) < 1e-6",
  function(r, options)
    check_run("kl", {run = r}, "run")
    return new_metric({kind = "kl", run = r}, options, "kl")
  end)

local function metric_name(x)
  if type(x) == "function" then return "metric" end
  local words = {logit_diff = x.b and "logit difference" or "logit",
                 logprob = "log probability (nats)", prob = "probability",
                 loss = "loss (nats)", kl = "KL divergence (nats)"}
  return words[x.kind]
end

metric_meta.__tostring = function(x)
  local function shown(t)
    if type(t) == "table" then return #t .. " tokens" end
    return type(t) == "string" and ("%q"):format(t) or tostring(t)
  end
  local parts = {}
  if x.a ~= nil then parts[1] = shown(x.a) end
  if x.b ~= nil then parts[2] = shown(x.b) end
  return "metric " .. x.kind .. "(" .. table.concat(parts, ", ") .. ")"
end

local function mean_of(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return sum / #list
end

run.measure = doc("run.measure", "r:measure(metric) -> number",
  "What a metric (qkv.logit_diff and its kin, or a function of a run) says of "
  .. "a run; of a batch: a list, one number a sequence.\n"
  .. "> m:run({1}):measure(function(r) return r:logit(0) end) == "
  .. "m:run({1}):logit(0)",
  function(r, what)
    local list = H.measure(r, what)
    return #list == 1 and list[1] or list
  end)

---- what is put there ----

-- The donor's values for each sequence of r, and how many of the first
-- positions of each are r's own already.
local function values_of_run(r, donor, site)
  local from, values = sequences(donor), {}
  for i = 1, #r do
    values[i] = (#from == 1 and i > 1) and values[1] or from[i](site)
  end
  return values, H.same(r, donor)
end

local function lengths(list)
  local n = {}
  for i, r in ipairs(list) do n[i] = r.tokens:size(0) end
  return n
end

local function all_equal(list, to)
  for _, v in ipairs(list) do
    if v ~= to then return false end
  end
  return true
end

-- Mean over the sequences of a run, position by position when all are as long
-- as what is ablated; else over all positions of all sequences.
local function mean_values(r, from, site)
  local list, values, known = sequences(from), {}, {}
  local n_from <const> = lengths(list)
  local tensors = {}
  for i, one in ipairs(list) do tensors[i] = one(site) end
  local axes <const> = tensors[1].axes
  local scores <const> = axes[#axes] == "key"
  for i, n in ipairs(lengths(sequences(r))) do
    if not known[n] then
      local sum
      if all_equal(n_from, n) then
        for _, t in ipairs(tensors) do sum = sum and sum + t or t:clone() end
        known[n] = sum / #tensors
      elseif scores then
        raise("ablate: a mean of patterns needs sequences of %d tokens", n)
      else
        local rows = 0
        for j, t in ipairs(tensors) do
          local s = t:sum("pos")
          sum = sum and sum + s or s
          rows = rows + n_from[j]
        end
        local shape = sum.shape               -- [layer, ...] to [layer, 1, ...]
        table.insert(shape, 2, 1)
        known[n] = (sum / rows):reshape(shape)
      end
    end
    values[i] = known[n]
  end
  return values
end

-- Another sequence of the run for each, drawn at random.
local function resampled_values(r, from, site, seed)
  local list, values = sequences(from), {}
  local n_from <const> = lengths(list)
  local drawn <const> = qkv.randint({#r}, {low = 0, high = #list, seed = seed})
  for i, n in ipairs(lengths(sequences(r))) do
    if not all_equal(n_from, n) then
      raise("ablate: resampling needs sequences of one length; %d tokens are "
            .. "ablated", n)
    end
    values[i] = list[drawn[i - 1] + 1](site)
  end
  return values
end

-- A tensor, spread over the site's shape.
local function spread_values(r, t, site)
  local values = {}
  for i, one in ipairs(sequences(r)) do values[i] = one(site) * 0 + t end
  return values
end

local function whole(t, like)
  return t.shape[2] == 1 and like * 0 + t or t
end

local function ablation_values(r, with, site)
  if with == nil or with == "zero" then return nil end
  if type(with) ~= "table" then
    if class_of(with) ~= "qkv.tensor" and type(with) ~= "number" then
      raise("ablate: with = \"zero\", a tensor, {mean = run} or {resample = "
            .. "run, seed =} was expected, got %s", tostring(with))
    end
    return spread_values(r, with, site)
  end
  check_options("ablate", with, {"mean", "resample", "seed"})
  if with.mean then
    local values = mean_values(r, check_run("ablate", with, "mean"), site)
    for i, one in ipairs(sequences(r)) do
      values[i] = whole(values[i], one(site))
    end
    return values
  end
  return resampled_values(r, check_run("ablate", with, "resample"), site,
                          with.seed)
end

---- results ----

-- Mean, spread and each sequence's own, of half.sweep's answer.
local function result_of(each, done, before)
  local s = {each = each, value = each:mean("seq"), done = done}
  s.sd = #before > 1 and each:std("seq") or s.value * (0 / 0)
  s.before = mean_of(before)
  return s
end

local function look(r, options, values, same)
  return result_of(H.sweep{run = r, site = options.site, axes = options.axes,
    block = options.block, metric = options.metric, values = values,
    same = same})
end

local function finish(s, r, options, kind)
  s.site, s.axes, s.block = options.site, options.axes, options.block
  s.kind, s.metric, s.run = kind, options.metric, r
  s.change = s.value - s.before
  return setmetatable(s, meta)
end

local function need(fn, options, names)
  for _, name in ipairs(names) do
    if options[name] == nil then
      raise("%s: option '%s' is missing", fn, name)
    end
  end
end

local function same_lengths(clean, corrupt)
  local a, b = sequences(clean), sequences(corrupt)
  if #a ~= #b then
    raise("patch: clean has %d sequences, corrupt %d", #a, #b)
  end
  for i = 1, #a do
    local n, k = a[i].tokens:size(0), b[i].tokens:size(0)
    if n ~= k then
      raise("patch: clean has %d tokens, corrupt %d; each position of one is "
            .. "put in the place of the other's:\n  clean:   %s\n  corrupt: %s",
            n, k, table.concat(a[i].pieces, "|"),
            table.concat(b[i].pieces, "|"))
    end
  end
end

qkv.patch = doc("qkv.patch", "qkv.patch{clean=, corrupt=, site=, axes=, "
  .. "metric=, direction=, block=} -> sweep",
  "Activation patching: put a site's values of one run into another, at each "
  .. "cell of a grid, and see what that does to a metric. clean, corrupt: runs "
  .. "(or batches) of the same length. axes: of \"layer\", \"pos\", \"head\", "
  .. "\"neuron\" (in blocks of `block`). direction: \"denoise\" (clean values "
  .. "into the corrupt run; the default) or \"noise\" (the other way round). "
  .. "s.value [axes], s.each [seq, axes], s.sd over sequences, s.clean and "
  .. "s.corrupt (the metric of both), s.normalized (0: corrupt, 1: clean), "
  .. "s.change; s:top(k), s:plot(). All cells are one batch of forks. Ctrl-C "
  .. "gives what is done, the rest NaN.\n"
  .. "> qkv.patch{clean = m:run{1, 2}, corrupt = m:run{3, 2}, site = "
  .. "\"resid_pre\", axes = {\"layer\", \"pos\"}, metric = "
  .. "qkv.logit_diff(5, 6)}.value:size(\"pos\") == 2",
  function(options)
    options = check_options("patch", options, {"clean", "corrupt", "site",
      "axes", "metric", "direction", "block"})
    need("patch", options, {"clean", "corrupt", "site", "axes", "metric"})
    local clean = check_run("patch", options, "clean")
    local corrupt = check_run("patch", options, "corrupt")
    local direction = options.direction or "denoise"
    if direction ~= "denoise" and direction ~= "noise" then
      raise("patch: direction '%s' is not \"denoise\" or \"noise\"",
            tostring(direction))
    end
    same_lengths(clean, corrupt)
    local r, donor = corrupt, clean
    if direction == "noise" then r, donor = clean, corrupt end
    local s = look(r, options, values_of_run(r, donor, options.site))
    local other = mean_of(H.measure(donor, options.metric))
    s.clean, s.corrupt = other, s.before
    if direction == "noise" then s.clean, s.corrupt = s.before, other end
    s.normalized = (s.value - s.corrupt) / (s.clean - s.corrupt)
    s.direction = direction
    return finish(s, r, options, "patch")
  end)

qkv.ablate = doc("qkv.ablate", "qkv.ablate{run=, site=, axes=, with=, "
  .. "metric=, block=} -> sweep",
  "Take a site's values away at each cell of a grid and see what that does to "
  .. "a metric. with: \"zero\" (the default), a number or a tensor (spread "
  .. "over [layer, pos, ...]), {mean = run}: the mean over the sequences of a "
  .. "run, position by position when they are as long, else over all "
  .. "positions; {resample = run, seed =}: another sequence, drawn at random. "
  .. "Results as in qkv.patch; s.clean is the metric of the run itself.\n"
  .. "> qkv.ablate{run = m:run{1, 2}, site = \"z\", axes = {\"layer\", "
  .. "\"head\"}, metric = qkv.logprob(5)}.value:size(\"head\") == "
  .. "m.config.n_heads",
  function(options)
    options = check_options("ablate", options, {"run", "site", "axes", "with",
      "metric", "block"})
    need("ablate", options, {"run", "site", "axes", "metric"})
    local r = check_run("ablate", options, "run")
    local s = look(r, options, ablation_values(r, options.with, options.site))
    s.clean = s.before
    s.normalized = s.value / s.clean
    return finish(s, r, options, "ablate")
  end)

sweep.top = doc("sweep.top", "s:top(k) -> list",
  "The k cells that change the metric most, either way: records {layer=, "
  .. "head=, ..., value=, change=}.\n"
  .. "> #qkv.ablate{run = m:run{1, 2}, site = \"z\", axes = {\"layer\", "
  .. "\"head\"}, metric = qkv.logprob(5)}:top(3) == 3",
  function(s, k)
    local list = s.change:abs():ranked(k or 10)
    for _, record in ipairs(list) do
      local at = {}
      for name, index in pairs(record) do
        if name ~= "value" then at[name] = index end
      end
      record.value, record.change = s.value:at(at), s.change:at(at)
    end
    return list
  end)

local function axis_labels(s, axis)
  if (axis == "pos" or axis == "query") and #s.run == 1 then
    return s.run.pieces
  end
  return nil
end

sweep.plot = doc("sweep.plot", "s:plot{title=, size=} -> plot",
  "The change of the metric by cell: a heat map of two axes, bars of one.",
  function(s, options)
    local given = half.given(options)
    local verb = s.kind == "patch" and "Patching " or "Ablating "
    local t, axes = s.change, s.change.axes
    given.title = given.title or verb .. s.site .. ": change of the "
                  .. metric_name(s.metric)
    if #axes == 1 then
      given.labels = axis_labels(s, axes[1])
      given.xlabel = given.xlabel or axes[1]
      return qkv.plot.bar(t, given)
    elseif #axes > 2 then
      raise("plot: a sweep over %d axes; take a part of s.change, and "
            .. "qkv.plot.heatmap of it", #axes)
    end
    given.rows, given.cols = axis_labels(s, axes[1]), axis_labels(s, axes[2])
    given.ylabel = given.ylabel or axes[1]
    given.xlabel = given.xlabel or axes[2]
    given.scale = "diverging"
    return qkv.plot.heatmap(t, given)
  end)

meta.__tostring = function(s)
  local grid = {}
  for i, axis in ipairs(s.value.axes) do
    grid[i] = axis .. " " .. s.value.shape[i]
  end
  local parts = {("%s of %s over %s"):format(
    s.kind == "patch" and "patching" or "ablation", s.site,
    table.concat(grid, " x "))}
  parts[#parts + 1] = ("clean %.4g"):format(s.clean)
  if s.kind == "patch" then
    parts[#parts + 1] = ("corrupt %.4g"):format(s.corrupt)
  end
  if s.done < 1 then
    parts[#parts + 1] = ("interrupted, %.0f %% done"):format(100 * s.done)
  else
    local best = s:top(1)[1]
    local at = {}
    for i, axis in ipairs(s.value.axes) do
      at[i] = axis .. " " .. tostring(best[axis])
    end
    parts[#parts + 1] = ("most: %s, %+.4g"):format(table.concat(at, ", "),
                                                   best.change)
  end
  return table.concat(parts, "; ")
end

-- test_geometry.lua - likeness, neighbours, principal components
--
-- Oracle: numpy 2.4.6 in float64 (pca by numpy.linalg.svd of x - mean, signs
-- so that the largest loading is positive; variance with n - 1).
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"
local TOL <const> = 1e-6
local nan <const> = 0/0

local a <const> = qkv.tensor({{-2.25, 1.25, -.75, 2.75}, {.75, -1.25, 2.25, .25},
  {-1.75, 1.75, -.25, -2.25}}, {axes = {"word", "d"}})
local d <const> = qkv.tensor{{-1.75, 2.05, .35, -1.35}, {.75, -.95, 2.85, 1.15},
  {-2.25, 1.55, -.15, 3.65}}
local d2 <const> = d:slice{[0] = {to = 2}}
-- x [7, 4] = ((arange(28) * 11) % 17 - 8) / 5
local x <const> = qkv.tensor{{-8, 3, -3, 8}, {2, -4, 7, 1}, {-5, 6, 0, -6},
  {5, -1, -7, 4}, {-2, -8, 3, -3}, {8, 2, -4, 7}, {1, -5, 6, 0}} / 5
local y <const> = {.3, -.2, 1, .5}

---- likeness ----

for _, row in ipairs{
  {"cosine", qkv.cosine(a, d2), {{.2166385, -.1458355}, {-.4191426, .9501132}, {.9431161, -.5664024}}},
  {"dot", qkv.dot(a, d2), {{2.525, -1.85}, {-3.425, 8.45}, {9.6, -6.275}}},
  {"correlation", qkv.correlation(a, d2), {{.235211, -.2721527}, {-.4080214, .9697055}, {.9765307, -.4637643}}},
  {"vectors", qkv.cosine(a[0], d[0]), .2166385}, {"tables", qkv.dot({1, 2}, {3, 4}), 11},
  {"vector and rows", qkv.cosine(a[0], d2), {{.2166385, -.1458355}}},
  {"along rows", qkv.cosine(a, d, {along = "word"}), {.2166385, .9501132, -.0996684}},
  {"along columns", qkv.correlation(a, d, {along = -1}), {.9516129, .9516129, .9516129, -1}},
  {"zeros have no direction", qkv.cosine({{0, 0}, {1, 0}}, {{1, 0}}), {{nan}, {1}}},
  {"constants have no correlation", qkv.correlation({{2, 2, 2}}, {{1, 2, 3}}), {{nan}}},
  {"nan stays", qkv.dot({{nan, 1}, {1, 1}}, {{1, 1}}), {{nan}, {2}}},
  {"length does not matter", qkv.cosine({3e10, 4e10}, {3e-10, 4e-10}), 1},
  {"a large mean", qkv.correlation({1e4 + 1, 1e4 + 2, 1e4 + 3}, {1, 2, 3}), 1},
} do check.near(row[2], row[3], TOL, row[1]) end
check.equal(qkv.cosine(a).axes, {"word", ""}, "names")
check.equal(qkv.cosine(a, d).axes, {"word", ""}, "one name")
check.near(qkv.cosine(a):diagonal(), {1, 1, 1}, TOL, "itself")
check.near(qkv.cosine(a), qkv.cosine(a):t(), TOL, "symmetric")
check.near(qkv.cosine(a:t():t()), qkv.cosine(a:clone()), 0, "a view")
check.yes(qkv.cosine(qkv.randn(300, 3, {seed = 1})):max() <= 1, "never over 1")
check.equal(qkv.cosine(qkv.zeros(0, 3), qkv.zeros(2, 3)).shape, {0, 2}, "none")
-- More values than a block holds: 2^22.
local big <const> = qkv.randn(5000, 1000, {seed = 3})
check.near(qkv.dot(big, big[4321])[4321][0], (big[4321] ^ 2):sum(), 2e-3,
  "block by block")
local three <const> = qkv.randn(2, 3, 4, {seed = 1, axes = {"head", "pos", "d"}})
check.equal(qkv.cosine(three, three, {along = "pos"}).axes, {"head", "pos"}, "pairs of 3 axes")

---- nearest ----

local function found(metric, query)
  local indices, scores = {}, {}
  for i, r in ipairs(qkv.nearest(x, query or y, {k = 3, metric = metric})) do
    indices[i], scores[i] = r.index, r.score
  end
  return indices, scores
end
for _, row in ipairs{
  {"cosine", {1, 6, 4}, {.9055271, .7892007, .2294834}},
  {"dot", {1, 6, 4}, {1.78, 1.46, .5}},
  {"l2", {1, 6, 4}, {.7874008, .969536, 1.954482}},
} do
  local indices <const>, scores <const> = found(row[1])
  check.equal(indices, row[2], row[1])
  check.near(scores, row[3], TOL, row[1])
end
check.equal(#qkv.nearest(x, y), 7, "ten, or as many as there are")
check.equal(#qkv.nearest(x, {y, y}, {k = 2}), 2, "a list for each query")
check.equal(qkv.nearest(x, {y, x[5]:table()}, {k = 1})[2][1].index, 5, "itself")
check.equal(qkv.nearest({{1, 0}, {nan, 0}, {2, 0}}, {1, 0}, {k = 3, metric = "dot"})[3].index,
  1, "nan comes last")
check.equal(qkv.nearest({{1, 0}, {nan, 0}, {2, 0}}, {1, 0}, {k = 3, metric = "l2"})[3].index,
  1, "nan comes last, of distances too")
check.equal(qkv.nearest({{1, 0}, {1, 0}}, {1, 0})[1].index, 0, "ties")
check.equal(#qkv.nearest(qkv.zeros(0, 2), {1, 0}), 0, "nothing to find")

---- principal components ----

local p <const> = qkv.pca(x, {k = 3})
for _, row in ipairs{
  {"mean", p.mean, {.0285714, -.2, .0571429, .3142857}},
  {"components", p.components, {{-.2527098, -.4233554, .67143, -.5532538},
     {.8116526, -.5318053, .1352142, .2003005}, {-.4778819, -.3923578, .1991984, .7602659}}},
  {"scores", p.scores, {{-1.0796801, -1.5786043, 1.3109615}, {1.1250132, .779236, .2385231},
     {.4666493, -1.8904088, -1.2204079}, {-1.4925821, .6887249, -.3852166},
     {1.5713244, .2869464, .1671434}, {-1.8273155, 1.0579421, -.3316818},
     {1.236591, .6561636, .2206782}}},
  {"variance", p.variance, {2.0357044, 1.4632197, .5999915}},
  {"ratio", p.ratio, {.4626601, .3325499, .1363617}},
} do check.near(row[2], row[3], 2e-6, row[1]) end
check.near(p:project(x), p.scores, 1e-6, "project")
check.near(p:project(x[2]), p.scores[2], 1e-6, "project a vector")
check.near(p.components:matmul(p.components:t()), qkv.eye(3), 1e-6, "orthonormal")
check.equal(p.scores.axes, {"", "comp"}, "names")
check.equal(qkv.pca(a).components.axes, {"comp", "d"}, "names of x")
check.equal(tostring(p), "pca: 3 of 4 components, variance 46.3 %, 33.3 %, 13.6 %", "tostring")
check.equal(#qkv.pca(x).variance, 2, "two components unless asked")
check.equal(#qkv.pca{{1, 2}, {3, 4}}.variance, 1, "two points have one")

-- Over SVD_MOST steps the Gram matrix serves: [d, d] and [n, n].
for _, shape in ipairs{{3000, 300}, {300, 3000}} do
  local scale <const> = qkv.arange(shape[2]):clamp(1) ^ -0.5
  local z <const> = qkv.randn(shape, {seed = 5}) * scale
  local what <const> = ("%dx%d"):format(shape[1], shape[2])
  local got <const> = qkv.pca(z, {k = 3})
  local centred <const> = z - z:mean(0)
  check.near(got.components:matmul(got.components:t()), qkv.eye(3), 1e-5, what)
  -- an eigenvector of the covariance is stretched, not turned
  local c <const> = centred:t():matmul(centred:matmul(got.components[0])) / (shape[1] - 1)
  check.near(c / got.variance[0], got.components[0], 1e-4, what .. ": eigenvector")
  check.yes(got.variance[0] > got.variance[1] and got.variance[1] > got.variance[2],
    what .. ": falling")
  check.near(got.ratio[0], got.variance[0] * (shape[1] - 1) / (centred ^ 2):sum(), 1e-6,
    what .. ": ratio")
end
-- Rank 2 in 3000 x 300: the third component is only rounding; still a unit.
local flat <const> = qkv.randn(3000, 2, {seed = 1}):matmul(qkv.randn(2, 300, {seed = 2}))
local f <const> = qkv.pca(flat, {k = 3})
check.near(f.ratio:sum(), 1, 1e-5, "rank 2")
check.near(f.components:norm(1), {1, 1, 1}, 1e-5, "rank 2: units")

---- errors ----

for _, row in ipairs{
  {function() return qkv.cosine(a, {{1, 2}}) end, "f32 %[word 3, d 4%] against rows of f32 %[1, 2%]"},
  {function() return qkv.cosine(qkv.zeros(2, 2, 2)) end, "%[2, 2, 2%]: rows"},
  {function() return qkv.cosine(a, d2, {along = 0}) end, "the same shape"},
  {function() return qkv.cosine(a, d, {along = "wrod"}) end, "did you mean 'word'"},
  {function() return qkv.cosine(a, d, {axis = 0}) end, "unknown option 'axis'"},
  {function() return qkv.cosine() end, "."},
  {function() return qkv.nearest(x, {1, 2}) end, "%[7, 4%]"},
  {function() return qkv.nearest(x, y, {k = -1}) end, "%-1 nearest"},
  {function() return qkv.nearest(x, y, {metric = "cos"}) end, "cosine, dot or l2 expected, got 'cos'"},
  {function() return qkv.pca(x, {k = 5}) end, "5 components of f32 %[7, 4%]: 1 to 4"},
  {function() return qkv.pca(x, {k = 0}) end, "1 to 4"},
  {function() return qkv.pca{{1, 2}} end, "two points"},
  {function() return qkv.pca{1, 2} end, "points %[n, d%]"},
  {function() return qkv.pca{{1, 2}, {3, nan}} end, "row 1, column 1"},
  {function() return p:project{1, 2} end, "as many columns"},
  {function() return p:projct(x) end, "did you mean 'project'"},
  {function() return p.score end, "did you mean 'scores'"},
} do check.error(row[1], row[2]) end
check.done()

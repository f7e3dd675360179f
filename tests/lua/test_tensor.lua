-- test_tensor.lua - tensors, as API.md has them: the numbers are NumPy's
--
-- Oracle: numpy 2.4.6, float64 on the same values; std and var with ddof = 1.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local globals <const> = {}
for name in pairs(_G) do globals[name] = true end
local qkv <const> = require "qkv"
local TOL <const> = 2e-6        -- float32 results near 1, rounded to 7 digits
local nan <const>, inf <const> = 0/0, math.huge

-- a [3, 4] = ((arange(12) * 7) % 11 - 4.5) / 2
local A <const> = {{-2.25, 1.25, -0.75, 2.75}, {0.75, -1.25, 2.25, 0.25},
                   {-1.75, 1.75, -0.25, -2.25}}
local a <const> = qkv.tensor(A, {axes = {"pos", "comp"}})
-- b [4, 5] = ((arange(20) * 5) % 9 - 4) / 3
local b <const> = qkv.tensor{{-4, 1, -3, 2, -2}, {3, -1, 4, 0, -4},
                             {1, -3, 2, -2, 3}, {-1, 4, 0, -4, 1}} / 3
-- c [2, 3, 4] = ((arange(24) * 5) % 13 - 6) / 4
local c <const> = (qkv.tensor{
  {{-6, -1, 4, -4}, {1, 6, -2, 3}, {-5, 0, 5, -3}},
  {{2, -6, -1, 4}, {-4, 1, 6, -2}, {3, -5, 0, 5}}} / 4)

---- what a tensor says of itself ----

for _, row in ipairs{
  {"shape", a.shape, {3, 4}}, {"axes", a.axes, {"pos", "comp"}},
  {"no axes", b.axes, {"", ""}}, {"dtype", a.dtype, "f32"}, {"#", #a, 3},
  {"size by name", a:size "comp", 4}, {"size by number", a:size(0), 3},
  {"size from the end", a:size(-1), 4}, {"count", a:count(), 12},
  {"table", a:table(), A}, {"item", qkv.full({1, 1}, 7):item(), 7},
  {"scalar", qkv.tensor(5):item(), 5}, {"scalar shape", qkv.tensor(5).shape, {}},
  {"empty", qkv.zeros(0, 3).shape, {0, 3}}, {"empty table", qkv.zeros(0):table(), {}},
  {"integers", math.type(qkv.tensor({1}, {dtype = "i32"})[0]), "integer"},
  {"i64 is exact", qkv.randint({1}, {low = (1 << 53) + 3, high = (1 << 53) + 4})[0],
   (1 << 53) + 3},
} do check.equal(row[2], row[3], row[1]) end

---- tostring is one line ----

for _, row in ipairs{
  {qkv.tensor{{1, 2}, {3, 4.5}}, "f32 [2, 2]  {{1, 2}, {3, 4.5}}"},
  {qkv.tensor({1, nan, inf}, {axes = {"pos"}}), "f32 [pos 3]  {1, nan, inf}"},
  {a, "f32 [pos 3, comp 4]  mean 0.0417 ± 1.74  [-2.25, 2.75]"},
  {qkv.cat{qkv.ones(9), qkv.tensor{nan, -inf}},
   "f32 [11]  mean 1 ± 0  [1, 1]  1 nan  1 inf"},
  {qkv.full({9}, nan), "f32 [9]  9 nan"},
  {qkv.arange(20, {dtype = "i32"}), "i32 [20]  [0, 19]"},
  {qkv.tensor(3), "f32 []  3"}, {qkv.zeros(0), "f32 [0]  {}"},
} do check.equal(tostring(row[1]), row[2], "tostring") end

-- What print gives, as text.
local function printed(t, options)
  local print_ <const>, lines = print, {}
  _G.print = function(s) lines[#lines + 1] = s end
  local ok, message = pcall(t.print, t, options)
  _G.print = print_
  return ok and table.concat(lines, "\n") or message
end
check.equal(printed(qkv.tensor{{1, -20}, {300, 4}}),
  "f32 [2, 2]\n  1  -20\n300    4", "print whole numbers")
check.equal(printed(qkv.tensor{0.5, nan, 12.25}),
  "f32 [3]\n 0.500     nan  12.250", "print fractions")
check.equal(printed(qkv.arange(30):reshape(10, 3), {limit = 4}),
  "f32 [10, 3]\n 0   1   2\n 3   4   5\n…\n24  25  26\n27  28  29",
  "print the ends")
check.equal(printed(qkv.arange(6), {limit = 3}), "f32 [6]\n0  1  …  5",
  "print the ends of a row")
check.equal(printed(qkv.zeros(2, 1, 1, {axes = {"head", "query", "key"}})),
  "f32 [head 2, query 1, key 1]\n[head 0]\n0\n[head 1]\n0", "print pages")
check.equal(printed(qkv.zeros(0, 2)), "f32 [0, 2]", "print nothing")
check.equal(printed(qkv.tensor{1e-8, 2e9}), "f32 [2]\n1.000e-08  2.000e+09",
  "print with an exponent")

---- making ----

for _, row in ipairs{
  {"zeros", qkv.zeros(2, 2), {{0, 0}, {0, 0}}},
  {"zeros of a list", qkv.zeros{1, 2}, {{0, 0}}},
  {"ones", qkv.ones(2), {1, 1}}, {"full", qkv.full({2}, 3.5), {3.5, 3.5}},
  {"full of one size", qkv.full(2, 4), {4, 4}},
  {"eye", qkv.eye(2, 3), {{1, 0, 0}, {0, 1, 0}}},
  {"arange", qkv.arange(3), {0, 1, 2}},
  {"arange from to", qkv.arange(2, 5), {2, 3, 4}},
  {"arange step", qkv.arange(1, 0, -0.25), {1, 0.75, 0.5, 0.25}},
  {"arange of nothing", qkv.arange(0), {}},
  {"full i32", qkv.full({2}, 3, {dtype = "i32"}), {3, 3}},
  {"sizes of a tensor", qkv.ones(qkv.tensor{1, 2}), {{1, 1}}},
} do check.near(row[2], row[3], 0, row[1]) end
check.equal(qkv.zeros(2, 3, {axes = {"head", "pos"}}).axes, {"head", "pos"},
  "axes")
check.equal(qkv.ones(2, {dtype = "f16"}).dtype, "f16", "dtype")

-- A seed gives the same numbers again; without one the stream goes on.
check.yes(qkv.randn(50, {seed = 3}):near(qkv.randn(50, {seed = 3}), 0), "seed")
check.yes(not qkv.randn(50, {seed = 3}):near(qkv.randn(50, {seed = 4})), "seeds")
qkv.seed(5)
local first <const>, second <const> = qkv.randn(50), qkv.randn(50)
check.yes(not first:near(second), "the stream goes on")
qkv.seed(5)
check.yes(first:near(qkv.randn(50), 0), "the stream starts again")
local many <const> = qkv.randn(20000, {seed = 1})
check.near(many:mean(), 0, 0.03, "normal mean")         -- 4 standard errors
check.near(many:std(), 1, 0.02, "normal sd")
check.near(qkv.rand(20000, {seed = 1}):mean(), 0.5, 0.01, "uniform mean")
local dice <const> = qkv.randint(600, {low = 1, high = 7, seed = 2})
check.equal({dice:min(), dice:max(), dice.dtype}, {1, 6, "i64"}, "dice")

---- elements and parts ----

for _, row in ipairs{
  {"[i]", a[1], A[2]}, {"[-i]", a[-1], A[3]}, {"[i][j]", a[2][3], -2.25},
  {"at by name", a:at{comp = 1, pos = 0}, 1.25},
  {"at by number", a:at{[0] = 0, [-1] = 1}, 1.25},
  {"at in order", a:at(0, 3), 2.75}, {"at part", a:at{comp = -1}, {2.75, .25, -2.25}},
  {"at with one", a:at(1), A[2]},
  {"slice", a:slice{pos = {from = 1}}, {A[2], A[3]}},
  {"slice two", a:slice{pos = {to = -2}, comp = {from = 1, to = 3}}, {{1.25, -.75}}},
  {"slice cut", a:slice{pos = {from = 2, to = 99}}, {A[3]}},
  {"slice of nothing", a:slice{pos = {from = 2, to = 1}}, {}},
  {"take", a:take{pos = {2, 0, -1}}, {A[3], A[1], A[3]}},
  {"take a tensor", a:take{comp = qkv.tensor{3, 0}},
   {{2.75, -2.25}, {.25, .75}, {-2.25, -1.75}}},
  {"take two", a:take{pos = {1}, comp = {1, 0}}, {{-1.25, .75}}},
  {"take none", a:take{pos = {}}, {}},
  {"diagonal", a:diagonal(1), {1.25, 2.25, -2.25}},
  {"diagonal below", a:diagonal(-1), {.75, 1.75}},
  {"triu", a:triu(1), {{0, 1.25, -.75, 2.75}, {0, 0, 2.25, .25}, {0, 0, 0, -2.25}}},
  {"t", a:slice{comp = {to = 2}}:t(), {{-2.25, .75, -1.75}, {1.25, -1.25, 1.75}}},
  {"transpose", c:transpose(0, 2):at(3, 1), {.75, -.5}},
  {"permute", c:permute(2, 0, 1):at(3, 0), {-1, .75, -.75}},
  {"reshape", a:reshape(2, -1)[1], {2.25, .25, -1.75, 1.75, -.25, -2.25}},
  {"reshape of a view", a:t():reshape(12):slice{[0] = {to = 4}},
   {-2.25, .75, -1.75, 1.25}},
} do check.near(row[2], row[3], 0, row[1]) end
check.equal(a:at{pos = 0}.axes, {"comp"}, "an index drops its axis")
check.equal(a:t().axes, {"comp", "pos"}, "names travel")
check.equal(a:reshape(4, 3, {axes = {"x", "y"}}).axes, {"x", "y"}, "new names")
check.equal(a:rename{pos = "comp", comp = "pos"}.axes, {"comp", "pos"}, "swap")
check.equal(a:rename{[0] = ""}.axes, {"", "comp"}, "a name taken off")
check.equal(a.axes, {"pos", "comp"}, "rename leaves t alone")
local seen <const> = {}
for i, row in pairs(a) do seen[#seen + 1] = {i, row[0]} end
check.equal(seen, {{0, -2.25}, {1, .75}, {2, -1.75}}, "pairs")

---- writing ----

local function written(fn)
  local t = qkv.zeros(2, 3, {axes = {"pos", "comp"}})
  fn(t)
  return t
end
for _, row in ipairs{
  {"t[i] = number", function(t) t[1] = 5 end, {{0, 0, 0}, {5, 5, 5}}},
  {"t[i] = table", function(t) t[0] = {1, 2, 3} end, {{1, 2, 3}, {0, 0, 0}}},
  {"t[-1][j] = number", function(t) t[-1][2] = 5 end, {{0, 0, 0}, {0, 0, 5}}},
  {"set", function(t) t:set({comp = 1}, {7, 8}) end, {{0, 7, 0}, {0, 8, 0}}},
  {"set range", function(t) t:set({comp = {from = 1}}, 2) end, {{0, 2, 2}, {0, 2, 2}}},
  {"set list", function(t) t:set({comp = {2, 0}}, {3, 4}) end, {{4, 0, 3}, {4, 0, 3}}},
  {"set lists", function(t) t:set({pos = {1, 0}, comp = {2, 0}}, {{1, 2}, {3, 4}}) end,
   {{4, 0, 3}, {2, 0, 1}}},
  {"set list and index", function(t) t:set({pos = 1, comp = {0, -1}}, {5, 6}) end,
   {{0, 0, 0}, {5, 0, 6}}},
  {"set broadcasts", function(t) t:set({pos = {0, 1}}, {1, 2, 3}) end,
   {{1, 2, 3}, {1, 2, 3}}},
  {"set all", function(t) t:set({}, 1) end, {{1, 1, 1}, {1, 1, 1}}},
  {"fill_", function(t) t:fill_(2) end, {{2, 2, 2}, {2, 2, 2}}},
  {"copy_", function(t) t:copy_{{1}, {2}} end, {{1, 1, 1}, {2, 2, 2}}},
  {"add_ sub_ mul_ div_", function(t) t:add_(6):sub_(1):mul_{1, 2, 3}:div_(5) end,
   {{1, 2, 3}, {1, 2, 3}}},
  {"through a view", function(t) t:t()[0]:fill_(9) end, {{9, 0, 0}, {9, 0, 0}}},
  {"shifted onto itself", function(t)
     t[0] = {1, 2, 3}
     t:slice{pos = {to = 1}, comp = {from = 1}}:copy_(t:slice{pos = {to = 1}, comp = {to = 2}})
   end, {{1, 1, 2}, {0, 0, 0}}},
} do check.near(written(row[2]), row[3], 0, row[1]) end
local copy <const> = a:clone()
copy[0] = 0
check.near(a[0], A[1], 0, "a clone is its own")
check.yes(rawequal(copy:fill_(1), copy), "in-place methods give t")

---- arithmetic ----

local v <const> = qkv.tensor{1, 2, 4, 8}
for _, row in ipairs{
  {"+", a + 1, {{-1.25, 2.25, .25, 3.75}, {1.75, -.25, 3.25, 1.25}, {-.75, 2.75, .75, -1.25}}},
  {"number -", 1 - v, {0, -1, -3, -7}}, {"- number", v - 1, {0, 1, 3, 7}},
  {"* row", a[0] * v, {-2.25, 2.5, -3, 22}}, {"number /", 8 / v, {8, 4, 2, 1}},
  {"/", a / a[0], {{1, 1, 1, 1}, {-.3333333, -1, -3, .0909091},
                   {.7777778, 1.4, .3333333, -.8181818}}},
  {"unary -", -v, {-1, -2, -4, -8}}, {"^", a[2] ^ 2, {3.0625, 3.0625, .0625, 5.0625}},
  {"number ^", 2 ^ a[1], {1.6817928, .4204482, 4.7568285, 1.1892071}},
  {"table on the left", {8, 8, 8, 8} / v, {8, 4, 2, 1}},
  {"column", qkv.tensor{{1}, {2}} * qkv.tensor{1, 10}, {{1, 10}, {2, 20}}},
  {"integers", qkv.tensor({3}, {dtype = "i32"}) / 2, {1.5}},
  {"lt", v:lt(4), {1, 1, 0, 0}}, {"le", v:le(4), {1, 1, 1, 0}},
  {"gt", v:gt{2, 2, 2, 2}, {0, 0, 1, 1}}, {"ge", v:ge(4), {0, 0, 1, 1}},
  {"eq", v:eq(4), {0, 0, 1, 0}}, {"nan is not equal", qkv.tensor{nan}:eq{nan}, {0}},
  {"where", qkv.where(v:lt(3), v, -1), {1, 2, -1, -1}},
  {"where number", qkv.where({1, 0}, 5, {6, 7}), {5, 7}},
  {"minimum", qkv.minimum(v, 3), {1, 2, 3, 3}}, {"maximum", qkv.maximum(3, v), {3, 3, 4, 8}},
  {"exp", a[0]:exp(), {.1053992, 3.4903430, .4723665, 15.6426319}},
  {"log", v:log() / math.log(2), {0, 1, 2, 3}}, {"log of 0", qkv.tensor{0, -1}:log(), {-inf, nan}},
  {"sqrt", a[0]:abs():sqrt(), {1.5, 1.1180340, .8660254, 1.6583124}},
  {"tanh", a[0]:tanh(), {-.9780261, .8482836, -.6351490, .9918597}},
  {"round", qkv.tensor{.5, 1.5, -2.5, 2.6}:round(), {0, 2, -2, 3}},
  {"clamp", v:clamp(2, 4), {2, 2, 4, 4}}, {"clamp below", v:clamp(3), {3, 3, 4, 8}},
  {"clamp nan", qkv.tensor{nan}:clamp(0, 1), {nan}},
  {"isnan", qkv.tensor{nan, 1}:isnan(), {1, 0}},
  {"matmul", a:matmul(b), {{3.0833333, 3.25, 3.4166667, -4.6666667, 0},
     {-1.5833333, -1.25, -.9166667, -1.3333333, 3.5}, {4.75, -3.9166667, 3.9166667, 2, -2.1666667}}},
  {"matmul batched", c:matmul(b)[1], {{-2.5833333, 2.25, -2.6666667, -.8333333, 1.75},
     {2.25, -2.5833333, 2.3333333, -1, 1.6666667}, {-2.6666667, 2.3333333, -2.4166667, -1.1666667, 1.5833333}}},
  {"matmul vector", a:matmul(v), {19.25, 9.25, -17.25}}, {"vector matmul vector", v:matmul(v), 85},
  {"einsum", qkv.einsum("i j, k j -> i k", a, a),
   {{14.75, -4.25, .125}, {-4.25, 7.25, -4.625}, {.125, -4.625, 11.25}}},
  {"einsum batched", qkv.einsum("h q d, h k d -> h q k", c, c)[0],
   {{4.3125, -2, 3.875}, {-2, 3.125, -1.5}, {3.875, -1.5, 3.6875}}},
  {"einsum sums", qkv.einsum("h i j -> j", c), {-2.25, -1.25, 3, .75}},
  {"einsum of all", qkv.einsum("i, i ->", v, v), 85},
  {"cat", qkv.cat{v, qkv.tensor{16}}, {1, 2, 4, 8, 16}},
  {"cat by name", qkv.cat({a, a:slice{comp = {to = 1}}}, "comp")[0], {-2.25, 1.25, -.75, 2.75, -2.25}},
  {"stack", qkv.stack{v, v}, {{1, 2, 4, 8}, {1, 2, 4, 8}}},
  {"stack last", qkv.stack({v, v}, -1)[3], {8, 8}},
} do check.near(row[2], row[3], 8e-6, row[1]) end     -- exp(2.75): 1 ulp is 1e-6
check.equal(a:matmul(b:rename{[1] = "d"}).axes, {"pos", "d"}, "matmul's names")
check.equal(qkv.einsum("q d, k d -> q k", a, a).axes, {"q", "k"}, "einsum's names")
check.equal(qkv.stack({v, v}, "layer").axes, {"layer", ""}, "stack's name")
check.equal(qkv.stack({v, v}, 1, "layer").axes, {"", "layer"}, "stack's second")
check.yes(v:near({1, 2, 4, 8.5}, .5) and not v:near({1, 2, 4, 8.5}, .4)
  and not v:near{1} and not qkv.tensor{nan}:near{nan}, "near")

---- along an axis, or over all ----

for _, row in ipairs{
  {"sum", a:sum(), .5}, {"sum pos", a:sum "pos", {-3.25, 1.75, 1.25, .75}},
  {"sum -1", a:sum(-1), {1, 2, -2.5}}, {"sum to a number", v:sum(0), 15},
  {"mean", a:mean(), .0416667}, {"mean pos", a:mean(0), {-1.0833333, .5833333, .4166667, .25}},
  {"std", a:std(), 1.7380545}, {"std comp", a:std "comp", {2.1984843, 1.4433757, 1.7969882}},
  {"var", a:var(), 3.0208333}, {"var pos", a:var "pos", {2.5833333, 2.5833333, 2.5833333, 6.25}},
  {"std of one", qkv.tensor{3}:std(), nan},
  {"min", a:min(), -2.25}, {"max comp", a:max "comp", {2.75, 2.25, 1.75}},
  {"nan goes through", qkv.tensor{1, nan, 3}:max(), nan},
  {"norm", a:norm(), 5.7662811}, {"norm comp", a:norm "comp", {3.8405729, 2.6925824, 3.3541020}},
  {"argmax", a:argmax(), 3}, {"argmax pos", a:argmax "pos", {1, 2, 1, 0}},
  {"argmin comp", a:argmin(1), {0, 1, 3}}, {"argmax nan", qkv.tensor{1, nan, 3}:argmax(), 1},
  {"sum of none", qkv.zeros(0):sum(), 0}, {"mean of none", qkv.zeros(0):mean(), nan},
  {"cumsum", a:cumsum "pos", {{-2.25, 1.25, -.75, 2.75}, {-1.5, 0, 1.5, 3}, {-3.25, 1.75, 1.25, .75}}},
  {"cumsum last", v:cumsum(), {1, 3, 7, 15}},
  {"softmax", a:softmax(), {{.0053473, .1770782, .0239649, .7936095},
     {.1606799, .0217457, .7201172, .0974573}, {.0255078, .8447028, .1143181, .0154713}}},
  {"log_softmax", a:log_softmax "pos"[1], {-.1238730, -3.5045969, -.1238730, -2.5850972}},
  {"softmax of -inf", qkv.full({2}, -inf):softmax(), {0, 0}},
  {"softmax is stable", qkv.tensor{1000, 1000}:softmax(), {.5, .5}},
} do check.near(row[2], row[3], TOL, row[1]) end
check.yes(math.type(a:argmax()) == "integer", "argmax is an integer")
check.near(qkv.full({1000000}, 0.1):mean(), 0.1, 1e-8, "double sums")

for _, row in ipairs{
  {"topk", {a:topk(2)}, {{2.75, 1.25}, {2.25, .75}, {1.75, -.25}}, {{3, 1}, {2, 0}, {1, 2}}},
  {"topk pos", {a:topk(1, "pos")}, {{.75, 1.75, 2.25, 2.75}}, {{1, 2, 1, 0}}},
  {"topk ties", {qkv.tensor{1, 3, 3}:topk(2)}, {3, 3}, {1, 2}},
  {"topk nan", {qkv.tensor{nan, 3, 2}:topk(3)}, {3, 2, nan}, {1, 2, 0}},
  {"sort", {a:sort()}, {{-2.25, -.75, 1.25, 2.75}, {-1.25, .25, .75, 2.25}, {-2.25, -1.75, -.25, 1.75}},
   {{0, 2, 1, 3}, {1, 3, 0, 2}, {3, 0, 2, 1}}},
  {"sort down", {a:at(2):sort{descending = true}}, {1.75, -.25, -1.75, -2.25}, {1, 2, 0, 3}},
} do
  check.near(row[2][1], row[3], 0, row[1])
  check.near(row[2][2], row[4], 0, row[1] .. ", where")
end
check.equal(a:ranked(2), {{pos = 0, comp = 3, value = 2.75}, {pos = 1, comp = 2, value = 2.25}}, "ranked")
check.equal(a:t():ranked(1), {{pos = 0, comp = 3, value = 2.75}}, "ranked view")
check.equal(v:ranked(1), {{index = 3, value = 8}}, "ranked vector")
check.equal(b:ranked(1)[1].col, 2, "ranked without names")
check.equal(#v:ranked(99), 4, "ranked more than there are")

---- types ----

for _, dtype in ipairs{"f32", "f16", "bf16", "i32", "i64", "u8"} do
  local t <const> = qkv.tensor({{1, 2}, {3, 200}}, {dtype = dtype})
  check.equal({t.dtype, t[1][0], t:sum(), (t * 2):at(1, 1), t:t()[0][1]},
    {dtype, 3, 206, 400, 3}, dtype)
  t[0] = 7
  check.equal(t:table()[1][2], 7, dtype .. " is written")
end
check.equal(qkv.tensor{2.5, 3.5, -1.2}:to "i32":table(), {2, 4, -1}, "to even")
check.near(qkv.tensor{1/3}:to "f16", {0.333251953125}, 0, "f16")
check.near(qkv.tensor{1/3}:to "bf16", {0.333984375}, 0, "bf16")
check.equal(v:float().dtype, "f32", "float")

---- files ----

local saved <const> = {a = a, ids = qkv.tensor({3, 1}, {dtype = "i64"})}
for _, ending in ipairs{"npy", "csv", "tsv"} do
  local path <const> = "tensor-test." .. ending
  a:save(path)
  check.near(qkv.load(path), A, 0, ending)
  os.remove(path)
end
for _, ending in ipairs{"npz", "safetensors"} do
  local path <const> = "tensor-test." .. ending
  qkv.save(path, saved)
  local back <const> = qkv.load(path)
  check.near(back.a, A, 0, ending)
  check.equal({back.ids.dtype, back.ids:table()}, {"i64", {3, 1}}, ending)
  a:t():save(path)
  check.near(select(2, next(qkv.load(path))), a:t(), 0, ending .. " alone")
  os.remove(path)
end
qkv.save("tensor-test.safetensors", saved)
local mapped <const> = qkv.load "tensor-test.safetensors".a
check.error(function() mapped:fill_(0) end, "clone", "read-only")
check.error(function() mapped[0] = 0 end, "clone", "read-only rows")
check.error(function() mapped:at(0):add_(1) end, "clone", "read-only views")
check.near(mapped:clone():fill_(1):sum(), 12, 0, "a clone is writable")
os.remove "tensor-test.safetensors"

---- errors are sentences ----

for _, row in ipairs{
  {function() return a[3] end, "pos 3 of 3: 0 to 2"},
  {function() return b[-5] end, "index %-5 of 4"},
  {function() return a[0.5] end, "integer"}, {function() return a[true] end, "boolean"},
  {function() return a.shpae end, "tensor has no 'shpae'; did you mean 'shape'%?"},
  {function() return a:summ() end, "did you mean 'sum'"},
  {function() a.name = 1 end, "index is an integer"},
  {function() return a:sum "cmop" end, "did you mean 'comp'"},
  {function() return a:sum(2) end, "axis 2 of 2"},
  {function() return a:sum(1, 2) end, "sum: 1 argument at most, got 2"},
  {function() return a:at{head = 0} end, "no axis 'head' in f32 %[pos 3, comp 4%]"},
  {function() return a:at{pos = 0, [0] = 1} end, "twice"},
  {function() return a:at{pos = {1}} end, "t:take"},
  {function() return a:at(0, 0, 0) end, "3 indices for 2 axes"},
  {function() return a:slice{pos = 1} end, "t:at"},
  {function() return a:slice{pos = {from = 0, too = 1}} end, "did you mean 'to'"},
  {function() return a:slice{pos = {from = "x"}} end, "integer expected, got string"},
  {function() return a:take{pos = {9}} end, "pos 9 of 3"},
  {function() return a:take{pos = {0.5}} end, "integers expected, got 0.5"},
  {function() return a + qkv.zeros(5) end, "%[pos 3, comp 4%].*%[5%]"},
  {function() return a + a:t() end, "pos"},
  {function() return qkv.eye(3, {axes = {"q", "k"}}) + qkv.eye(3, {axes = {"q", "d"}}) end, "'?[kd]'?"},
  {function() return a + {} end, "."}, {function() return a + "x" end, "tensor expected, got string"},
  {function() return a:matmul(a) end, "%[pos 3, comp 4%]"},
  {function() return a:t():t(1) end, "0 arguments at most"},
  {function() return c:t() end, "a matrix expected"},
  {function() return a:reshape(5, 5) end, "12 elements"},
  {function() return a:item() end, "one element"},
  {function() return a:topk(9) end, "9"},
  {function() return qkv.zeros(0):max() end, "."},
  {function() return a:to "f33" end, "unknown dtype 'f33'; there are: f32"},
  {function() return a:to "q4_0" end, "q4_0"},
  {function() return qkv.tensor{1, {2}} end, "made of numbers"},
  {function() return qkv.tensor{{1}, 2} end, "depth"},
  {function() return qkv.tensor{{1, 2}, {3}} end, "length: 2 and 1"},
  {function() return qkv.tensor{"1"} end, "made of numbers, got string"},
  {function() local t = {} t[1] = t return qkv.tensor(t) end, "nested over 8"},
  {function() return qkv.tensor() end, "."},
  {function() return qkv.zeros() end, "sizes expected"},
  {function() return qkv.zeros(-1) end, "%-1"},
  {function() return qkv.zeros(2, {axis = {"x"}}) end, "'axis'; did you mean 'axes'"},
  {function() return qkv.zeros(2, {axes = {"x", "y"}}) end, "2 names for 1 dimension"},
  {function() return qkv.zeros(2, 2, {axes = {"x", "x"}}) end, "'x' for axes 0 and 1"},
  {function() return qkv.zeros{2, axes = {"x"}} end, "field 'axes'"},
  {function() return qkv.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1) end, "8 axes at most"},
  {function() return qkv.zeros(math.maxinteger, 9) end, "addressed"},
  {function() return qkv.zeros(1 << 50) end, "no memory"},
  {function() return qkv.zeros(2, {dtype = "q4_0"}) end, "q4_0"},
  {function() return qkv.full({2}, 300, {dtype = "u8"}) end, "300 does not fit into u8"},
  {function() return qkv.tensor({nan}, {dtype = "i32"}) end, "nan"},
  {function() return qkv.arange(0, 1, 0) end, "no end"},
  {function() return qkv.arange(nan) end, "no end"},
  {function() return qkv.randint(3, {}) end, "'high'"},
  {function() return qkv.randn(3, {seed = 1.5}) end, "'seed': integer expected, got 1.5"},
  {function() return qkv.einsum("i j -> k", a) end, "."},
  {function() return qkv.einsum("i, i", v) end, "."},
  {function() return qkv.cat{} end, "list of tensors"},
  {function() return qkv.cat{a, b} end, "f32 %[4, 5%]"},
  {function() return qkv.stack({v, v}, 3) end, "axis 3 of 2"},
  {function() v[0] = {1, 2} end, "."}, {function() v:copy_(a) end, "."},
  {function() v:set({[0] = {0, 1}}, {1, 2, 3}) end, "2 indices for a value of size 3"},
  {function() v:set({[0] = 9}, 1) end, "9 of 4"},
  {function() v:print{limt = 3} end, "did you mean 'limit'"},
  {function() v:print{limit = 0} end, "'limit': 1 to"},
  {function() v:save "x.foo" end, "'x.foo': a name that ends in"},
  {function() v:save "x\0.npy" end, "without NUL"},
  {function() qkv.save("x.npy", {a = v}) end, "holds one tensor"},
  {function() qkv.save("x.npz", {v}) end, "by name"},
  {function() qkv.save("x.npz", {a = 1}) end, "'a': a tensor expected, got number"},
  {function() v:save "/nonexistent/x.npy" end, "/nonexistent"},
  {function() qkv.load "nothing.npy" end, "nothing.npy"},
  {function() qkv.load "nothing.npz" end, "nothing.npz"},
  {function() qkv.load "nothing.safetensors" end, "nothing.safetensors"},
} do check.error(row[1], row[2]) end

---- closing, and the collector ----

do
  local t <close> = qkv.zeros(2)
  check.equal(t:sum(), 0, "open")
end
local closed <const> = qkv.zeros(2)
getmetatable(closed).__gc(closed)
getmetatable(closed).__gc(closed)
check.error(function() return closed:sum() end, "closed", "closed")
check.equal(tostring(closed), "tensor (closed)", "closed")
-- 300 tensors of 4 MB that nobody keeps: without the hint 1.2 GB.
for _ = 1, 300 do qkv.zeros(1 << 20):fill_(1) end
local held = 0
for line in io.open "/proc/self/status":lines() do
  held = tonumber(line:match "^VmHWM:%s*(%d+)") or held
end
check.yes(held < 700000, ("%d kB were held at once"):format(held))

---- no global is touched ----

for name in pairs(_G) do check.yes(globals[name], "global " .. name) end
check.done()

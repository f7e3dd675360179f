-- test_linalg.lua - factorisations and linear systems: the numbers are NumPy's
--
-- Oracle: numpy.linalg 2.4.6 in float64; signs as core/tensor/linalg.h says.
local srcdir <const> = os.getenv "srcdir" or "."
local check = dofile(srcdir .. "/tests/lua/check.lua")
local qkv <const> = require "qkv"
local TOL <const> = 5e-6        -- float32 LAPACK on values up to 17
local nan <const> = 0/0

local S <const> = {{4, 1, -2, 2}, {1, 2, 0, 1}, {-2, 0, 3, -2}, {2, 1, -2, -1}}
local M <const> = {{1, 2, 3}, {4, 5, 6}, {7, 8, 10}, {-1, 2, 0}}
local P <const> = {{4, 2, .6}, {2, 5, 1}, {.6, 1, 3}}

---- against NumPy ----

local w <const>, v <const> = qkv.eigh(S)
check.near(w, {6.8446211, 2.2685314, 1.0843645, -2.197517}, TOL, "eigh w")
check.near(v, {{.718046, .2017111, .64226, -.1767052},
  {.221153, .7894499, -.5441878, -.1781005},
  {-.5573514, .5796342, .5202219, .287668},
  {.3533565, .010281, -.1439823, .9242849}}, TOL, "eigh v")
local q <const>, r <const> = qkv.qr(M)
check.near(q, {{.1221694, .2635248, .9545957}, {.4886778, .1408494, -.0418251},
  {.8551861, .0181741, -.148848}, {-.1221694, .9541414, -.2546409}}, TOL, "q")
check.near(r, {{8.1853528, 9.2848778, 11.8504361}, {0, 3.2849726, 1.8174122},
  {0, 0, 1.1243563}}, TOL, "r")
for _, row in ipairs{
  {"svd s", select(2, qkv.svd(M)), {17.4245494, 2.1797962, .7959681}},
  {"cholesky", qkv.cholesky(P), {{2, 0, 0}, {1, 2, 0}, {.3, .35, 1.6695808}}},
  {"solve", qkv.solve(P, {1, 2, 3}), {.0044843, .2125561, .9282511}},
  {"solve two", qkv.solve(P, {{1, 0}, {0, 1}, {1, 1}}),
   {{.2914798, -.1434978}, {-.1838565, .1982063}, {.3363229, .2959641}}},
  {"lstsq", qkv.lstsq(M, {1, 2, 3, 4}), {-.7035011, 1.6367615, -.5284464}},
  {"lstsq of least norm", qkv.lstsq({{1, 2, 3}, {4, 5, 6}}, {1, 2}),
   {-.0555556, .1111111, .2777778}},
} do check.near(row[2], row[3], TOL, row[1]) end

---- laws, on larger ones and their transposes ----

local function eye_of(x) return x:t():matmul(x) end
for _, shape in ipairs{{40, 7}, {7, 40}, {20, 20}, {1, 5}, {5, 1}} do
  local x <const> = qkv.randn(shape, {seed = 1})
  local what <const> = ("%dx%d"):format(shape[1], shape[2])
  local u, s, vt = qkv.svd(x)
  local k <const> = #s
  check.near((u * s):matmul(vt), x, 2e-5, what .. ": svd multiplies back")
  check.near(eye_of(u), qkv.eye(k), 1e-5, what .. ": u")
  check.near(eye_of(vt:t()), qkv.eye(k), 1e-5, what .. ": vt")
  local q2, r2 = qkv.qr(x)
  check.near(q2:matmul(r2), x, 2e-5, what .. ": qr multiplies back")
  check.near(eye_of(q2), qkv.eye(k), 1e-5, what .. ": q")
  -- columns of a view
  local t_u, t_s = qkv.svd(x:t())
  check.near(t_s, s, 2e-5, what .. ": svd of the transpose")
  check.equal(t_u.shape, {shape[2], k}, what .. ": its u")
end
local x <const> = qkv.randn(30, 30, {seed = 2})
local pd <const> = eye_of(x) + qkv.eye(30)
local l <const> = qkv.cholesky(pd)
check.near(l:matmul(l:t()), pd, 1e-4, "cholesky multiplies back")
check.near(x:matmul(qkv.solve(x, qkv.ones(30))), qkv.ones(30), 1e-3, "solve")

---- errors ----

for _, row in ipairs{
  {function() return qkv.svd{{1, nan}} end, "nan"},
  {function() return qkv.eigh{{1, 1/0}, {1/0, 1}} end, "inf"},
  {function() return qkv.eigh{{1, 2, 3}} end, "%[1, 3%]"},
  {function() return qkv.svd(qkv.zeros(2, 2, 2)) end, "%[2, 2, 2%]"},
  {function() return qkv.cholesky{{1, 2}, {2, 1}} end, "positive definite"},
  {function() return qkv.solve({{1, 2}, {2, 4}}, {1, 2}) end, "singular"},
  {function() return qkv.solve(P, {1, 2}) end, "%[2%]"},
  {function() return qkv.lstsq(M, {1, 2}) end, "%[2%]"},
  {function() return qkv.svd "a" end, "tensor expected, got string"},
  {function() return qkv.svd(M, 1) end, "1 argument at most"},
} do check.error(row[1], row[2]) end
check.done()

-- test_plot.lua - qkv.plot: every kind in every format, bad options, hostile
-- words, files that cannot be written, gnuplot missing
--
-- Pictures are judged by their format's signature and by what their script
-- holds; their looks are a matter for eyes.

local check = dofile((os.getenv "srcdir" or ".") .. "/tests/lua/check.lua")
local qkv = require "qkv"
local plot = qkv.plot

local function run(command)
  return os.execute(command) == true
end

local function slurp(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local s = f:read "a"
  f:close()
  return s
end

local DIR <const> = "test_plot.tmp"
run("rm -rf " .. DIR .. "; mkdir " .. DIR)

local function listing(dir)
  local p = io.popen("ls -A " .. dir)
  local s = p:read "a"
  p:close()
  return s
end

local gnuplot = run "command -v gnuplot >/dev/null 2>&1"
if not gnuplot then check.skip "gnuplot is not in PATH: nothing is drawn" end

---- every kind ----

local third <const> = 1 / 3
local pattern <const> = {{{1, 0, 0}, {0.5, 0.5, 0}, {third, third, third}},
                         {{1, 0, 0}, {0, 1, 0}, {0.2, 0.8, 0}}}
local nan <const> = 0 / 0

local kinds = {
  {"scatter", plot.scatter({{0, 1}, {2, 3}, {1, nan}},
    {labels = {"a", "b", "c"}, groups = {"x", "y", "x"}, title = "T",
     arrows = {{"a", "b"}, {0, -2}}, xlabel = "X", ylabel = "Y"})},
  {"scatter-bare", plot.scatter {{0, 0}}},
  {"heatmap", plot.heatmap({{1, -2, nan}, {3, 4, 1 / 0}},
    {rows = {"r", "s"}, cols = {1, 2, 3}, text = true, label = "unit"})},
  {"heatmap-row", plot.heatmap {{1, 2, 3}}},
  {"heatmap-column", plot.heatmap {{1}, {2}}},
  {"heatmap-cell", plot.heatmap({{5}}, {up = true})},
  {"heatmap-flat", plot.heatmap {{2, 2}, {2, 2}}},
  {"heatmap-nan", plot.heatmap {{nan, nan}, {nan, nan}}},
  {"heatmap-nan-row", plot.heatmap {{nan, nan}}},
  {"bar", plot.bar({1, -2, nan}, {labels = {"a", "b", "c"},
    error = {0.1, 0.2, 0.3}, text = true, note = "n = 3"})},
  {"bar-nan", plot.bar {nan, nan}},
  {"bar-long", plot.bar({1, 2}, {labels = {("long "):rep(20), "b"}})},
  {"histogram", plot.histogram({{1, 2, 2}, {3, nan, 1 / 0}}, {bins = 3})},
  {"histogram-one", plot.histogram {7, 7, 7}},
  {"line", plot.line({{1, 2, nan, 4}, {4, 3, 2, 1}},
    {x = {0, 1, 2, 5}, band = {{1, 1, 1, 1}, {0, 0, 0, 0}},
     labels = {"up", "down"}})},
  {"line-point", plot.line {3}},
  {"line-nan", plot.line {nan, nan}},
  {"attention", plot.attention(pattern, {tokens = {"a", " b", "\n"}})},
  {"attention-one", plot.attention(pattern, {heads = 1})},
  {"attention-flat", plot.attention(pattern[1])},
  {"attention-step", plot.attention({{0.25, 0.25, 0.5}},
    {tokens = {"a", "b", "c"}})},
  {"empty-scatter", plot.scatter {}},
  {"empty-heatmap", plot.heatmap {}},
  {"empty-columns", plot.heatmap {{}, {}}},
  {"empty-bar", plot.bar {}},
  {"empty-histogram", plot.histogram {}},
  {"empty-line", plot.line {}},
  {"empty-attention", plot.attention {}},
  {"empty-grid", plot.grid {}},
}
local all = {}
for i, k in ipairs(kinds) do all[i] = k[2] end
kinds[#kinds + 1] = {"grid", plot.grid({kinds[1][2], kinds[3][2],
  kinds[10][2], kinds[13][2], kinds[15][2], kinds[18][2]},
  {columns = 3, title = "all"})}
kinds[#kinds + 1] = {"grid-of-grid", plot.grid({plot.grid(all), all[1]})}
kinds[#kinds + 1] = {"dark", plot.line({1, 2}, {theme = "dark",
                                                size = {300, 200}})}

local BEGINS <const> = {png = "\x89PNG\r\n\x1a\n", svg = "<?xml", pdf = "%PDF"}
local ENDS <const> = {png = "IEND\xaeB`\x82", svg = "</svg>%s*$",
                      pdf = "%%EOF%s*$"}
if gnuplot then
  for _, k in ipairs(kinds) do
    for format, begins in pairs(BEGINS) do
      local path = DIR .. "/" .. k[1] .. "." .. format
      local ok, message = pcall(k[2].save, k[2], path)
      check.yes(ok, k[1] .. " " .. format .. ": " .. tostring(message))
      local bytes = slurp(path) or ""
      check.equal(bytes:sub(1, #begins), begins, path)
      check.yes(bytes:find(ENDS[format], -40), path .. " is whole")
      check.yes(not bytes:find "xlink:href=\"[^#d]", path .. " stands alone")
    end
  end
  check.yes(not listing(DIR):find "%.png%.", "no temporary file is left")
  check.yes(not listing(DIR):find "gp_image", "no side file")
end

-- a line of very many points keeps its extremes
do
  local y = {}
  for i = 1, 100000 do y[i] = math.sin(i) end
  y[77777], y[33333] = 5, -7
  local script = plot.line(y, {band = y}):render "gp"
  local _, rows = script:gsub("\n[%d.]+ ", "")
  check.yes(rows > 2000 and rows < 5000, "rows of a long line: " .. rows)
  check.yes(script:find "\n77776 5 " and script:find "\n33332 %-7 ",
            "the peaks are there")
end

---- scripts that run by themselves ----

for _, k in ipairs(kinds) do
  local path = DIR .. "/" .. k[1] .. ".gp"
  k[2]:save(path)
  local script = slurp(path)
  check.yes(script and script:find "set terminal pngcairo", path)
  check.yes(not script:find '"', path .. " has no double quote")
end
if gnuplot then
  for _, name in ipairs {"scatter", "attention", "grid", "heatmap-row"} do
    local direct = slurp(DIR .. "/" .. name .. ".png")
    run(("cd %s && mkdir -p hand && cd hand && gnuplot ../%s.gp")
        :format(DIR, name))
    check.yes(slurp(DIR .. "/hand/" .. name .. ".png") == direct,
              name .. ".gp makes the same picture by hand")
  end
end

---- hostile words ----

local hostile <const> = {
  "`touch test_plot.tmp/pwned`", "\"; system('touch test_plot.tmp/pwned')",
  "'; system('touch test_plot.tmp/pwned') #", "''", "'", "\\", "\\\n", "a\nb",
  "\r\n", "\0", "\0\0x", "@x", "%s%n%d", "${HOME}", "$(id)", "#", "END",
  "\nEND\nset output 'test_plot.tmp/pwned'\n", "{/Symbol a}", "a_b^c&d~e",
  "<script>alert(1)</script>", "]]>", "&lt;", "\xff\xfe", "\xe2\x82",
  "\xf0\x9f", "🧠", "👩‍👩‍👧", "𓀀", "ᚠ", "日本", "مرحبا", "e\u{301}", "\u{301}",
  "\u{202e}abc", "\u{feff}", "\u{10ffff}", "   ", "", " ", ("x"):rep(5000),
  ("é"):rep(300), "\t", "\27[31mred", "a'b''c", "\u{a0}"}
local n <const> = #hostile
local points, values = {}, {}
for i = 1, n do
  points[i], values[i] = {i % 7, i // 7}, i
end
local square, cells = {}, {}
for i = 1, n do
  square[i], cells[i] = {}, {}
  for j = 1, n do square[i][j], cells[i][j] = i * j, hostile[j] end
end
local everything = {}
for i, word in ipairs(hostile) do
  everything[i] = plot.line({1, 2}, {title = word, note = word, xlabel = word,
                                     ylabel = word, labels = {word}})
end
local bad_words = {
  plot.scatter(points, {labels = hostile, groups = hostile}),
  plot.heatmap(square, {rows = hostile, cols = hostile, text = cells,
                        label = hostile[1]}),
  plot.bar(values, {labels = hostile, text = hostile}),
  plot.attention({square, square}, {tokens = hostile}),
  plot.grid(everything)}
for i, p in ipairs(bad_words) do
  for _, format in ipairs {"png", "svg", "pdf", "gp"} do
    local path = DIR .. "/hostile" .. i .. "." .. format
    if gnuplot or format == "gp" then
      local ok, message = pcall(p.save, p, path)
      check.yes(ok, path .. ": " .. tostring(message))
    end
  end
  local script = slurp(DIR .. "/hostile" .. i .. ".gp")
  check.yes(utf8.len(script), "the script is UTF-8")
  check.yes(not script:find "[\0-\8\11-\31\127]", "no control bytes in it")
  if gnuplot then
    run(("cd %s && gnuplot hostile%d.gp"):format(DIR, i))
  end
end
check.yes(not slurp(DIR .. "/pwned"), "no word was executed")
for _, bytes in ipairs {slurp(DIR .. "/hostile1.svg"),
                        slurp(DIR .. "/hostile5.svg")} do
  check.yes(not bytes:find "<script", "svg text is escaped")
end

---- words as they are shown ----

local spelt <const> = {
  {" Mary", "·Mary"}, {"  x y ", "··x y "}, {"\n", "↵"}, {"a\n\n", "a↵↵"},
  {"\xc3", "\\xC3"}, {"\xe2\x82", "\\xE2\\x82"}, {"\0", "\\x00"},
  {"\u{200b}", "\\u{200B}"}, {"\u{301}", "\\u{301}"}, {"é", "é"},
  {"`\"\\", "`\"\\"}, {"\u{10fffe}", "\\u{10FFFE}"}}
for _, row in ipairs(spelt) do
  local script = plot.bar({1}, {labels = {row[1]}}):render "gp"
  check.yes(script:find("'" .. row[2] .. "'", 1, true),
            "spelt " .. row[2])
end

check.yes(plot.bar({1}, {labels = {"'it''s'"}}):render "gp"
          :find("label %d+ q%.'it'%.q%.q%.'s'%.q at"), "quotes are joined in")

---- wrong arguments ----

local P <const> = plot
local wrong <const> = {
  {"unknown option 'titel'; did you mean 'title'", P.line, {1}, {titel = "x"}},
  {"unknown option 'zzzz'; there are: bins", P.histogram, {1}, {zzzz = 1}},
  {"options are named", P.line, {1}, {"x"}},
  {"options go in a table, got a number", P.line, {1}, 5},
  {"'title' is a table, string expected", P.line, {1}, {title = {}}},
  {"size = {width, height} in pixels", P.line, {1}, {size = {10, 10}}},
  {"size = {width, height} in pixels", P.line, {1}, {size = {500}}},
  {"size = {width, height} in pixels", P.line, {1}, {size = {nan, 300}}},
  {"theme 'drak' is not one of dark, light", P.line, {1}, {theme = "drak"}},
  {"a tensor or a table of numbers expected", P.scatter},
  {"a tensor or a table of numbers expected", P.line, "x"},
  {"xy has 3 columns, 2 expected", P.scatter, {{1, 2, 3}}},
  {"row 1 of xy has 1 numbers, row 0 has 2", P.scatter, {{1, 2}, {3}}},
  {"xy holds a number at 0, a list", P.scatter, {1, 2}},
  {"xy holds a string at 1, numbers", P.scatter, {{1, "x"}}},
  {"labels has 1 entries, 2 expected", P.scatter, {{1, 2}, {3, 4}},
   {labels = {"a"}}},
  {"labels holds a table at 0", P.scatter, {{1, 2}}, {labels = {{}}}},
  {"groups has 0 entries", P.scatter, {{1, 2}}, {groups = {}}},
  {"an arrow wants 'c', which is not in labels", P.scatter, {{1, 2}},
   {labels = {"a"}, arrows = {{"a", "c"}}}},
  {"an arrow wants point 1 of 1: points run 0..0", P.scatter, {{1, 2}},
   {arrows = {{0, 1}}}},
  {"arrow 0 is not {from, to}", P.scatter, {{1, 2}}, {arrows = {{0}}}},
  {"scale 'log' is not one of diverging, sequential", P.heatmap, {{1}},
   {scale = "log"}},
  {"range = {lowest, highest} expected", P.heatmap, {{1}}, {range = {2, 1}}},
  {"palette 'jet' is not one of", P.heatmap, {{1}}, {palette = "jet"}},
  {"rows has 2 entries, 1 expected", P.heatmap, {{1}}, {rows = {1, 2}}},
  {"text is true, or 1 lists of words", P.heatmap, {{1}}, {text = {{}, {}}}},
  {"error has 1 entries, 2 expected", P.bar, {1, 2}, {error = {1}}},
  {"'horizontal' is a string, boolean expected", P.bar, {1},
   {horizontal = "yes"}},
  {"0 bins; 1 to 1000 expected", P.histogram, {1}, {bins = 0}},
  {"v holds a string", P.histogram, {"x"}},
  {"x has 1 entries, the longest line has 2", P.line, {1, 2}, {x = {1}}},
  {"band 0 has 1 entries, its line has 2", P.line, {1, 2}, {band = {1}}},
  {"labels has 2 entries, 1 expected", P.line, {1}, {labels = {"a", "b"}}},
  {"head 2 of 2: heads run 0..1", P.attention, pattern, {heads = {2}}},
  {"heads = needs a pattern", P.attention, pattern[1], {heads = {0}}},
  {"tokens has 2 entries, 3 expected", P.attention, pattern,
   {tokens = {"a", "b"}}},
  {"entry 0 is a number, a plot expected", P.grid, {1}},
  {"a list of plots expected, got a plot", P.grid, all[1]},
  {"99 columns; 1 to 50 expected", P.grid, {all[1]}, {columns = 99}},
  {"name 'blue' is not one of", P.theme, "blue"},
  {"qkv.plot expected, got table", all[1].save, {}, "x.png"},
  {"no .html pages yet", all[1].save, all[1], "x.html"},
  {"'x.jpg' ends in none of .png, .svg, .pdf, .gp", all[1].save, all[1],
   "x.jpg"},
  {"'.png' ends in none", all[1].save, all[1], ".png"},
  {"a file's name expected, got a nil", all[1].save, all[1]},
  {"format 'jpg'; 'png', 'svg'", all[1].render, all[1], "jpg"},
  {"plot has no 'sav'; did you mean 'save'", function() return all[1].sav end},
}
for _, row in ipairs(wrong) do
  local want = row[1]:gsub("[%-%.%[%]%(%)%+%*%?%^%$%%]", "%%%0")
  check.error(function() row[2](table.unpack(row, 3, 4)) end, want, row[1])
end
local _, message = pcall(function() plot.line({1}, {titel = "x"}) end)
check.yes(tostring(message):find "test_plot.lua:%d+:",
          "errors are of the caller's line: " .. tostring(message))

---- tensors ----

if qkv.tensor then
  local t = qkv.tensor(pattern)
  local from_tensor = plot.attention(t):render "gp"
  check.equal(from_tensor, plot.attention(pattern):render "gp",
              "a tensor draws as its table")
  for _, shape in ipairs {{0, 2}, {0, 0}} do
    check.yes(plot.scatter(qkv.zeros(shape)):render "gp", "empty tensor")
  end
  check.yes(plot.heatmap(qkv.zeros {0, 3}):render "gp", "empty tensor")
  check.error(function() plot.heatmap(t) end, "3 axes, two expected", "axes")
  local named = qkv.zeros({2, 3}, {axes = {"layer", "pos"}})
  local script = plot.heatmap(named):render "gp"
  check.yes(script:find "'layer'" and script:find "'pos'",
            "axis names are titles")
end
if qkv.pca then
  local p = qkv.pca({{0, 0, 1}, {1, 1, 0}, {2, 2.5, 0}, {3, 2.9, 1}}, {k = 2})
  local script = p:plot({labels = {"a", "b", "c", "d"}}):render "gp"
  check.yes(script:find "'PC 1  %(%d+%.%d %% of variance%)'", "pca's axes")
  check.error(function() p:plot {lable = {}} end, "did you mean", "pca option")
end

---- runs, by one that answers as a run does ----

local fake = setmetatable({
  pieces = {"a", " b", "c"}, model = {config = {n_layers = 2}},
  lens = function() return {{{piece = "x", prob = 0.5}, {piece = "y", prob = 1},
                             {piece = "z", prob = 0}},
                            {{piece = "u", prob = 0.1},
                             {piece = "v", prob = 0.2},
                             {piece = "\n", prob = 0.3}}} end,
  top = function(_, k) return ({{piece = " Mary", prob = 0.75},
                                {piece = "`", prob = 0.25}}), k end},
  {__call = function(_, site, layer)
    check.equal(site, "pattern", "which site")
    check.yes(layer == 0 or layer == 1, "which layer")
    return pattern
  end})
local found, run_methods = pcall(function()
  return debug.getregistry()["qkv.run"].methods
end)
if found and run_methods then
  local p = run_methods.plot_attention(fake, -1)
  check.yes(tostring(p):find "Attention, layer 1", "negative layer")
  check.yes(run_methods.plot_attention(fake, 0, 1):render("gp")
            :find "Attention, layer 0, head 1", "one head")
  check.error(function() run_methods.plot_attention(fake, 2) end,
              "layer 2 of 2: layers run 0..1", "layer")
  check.error(function() run_methods.plot_attention(fake, 0, 5) end,
              "head 5 of 2", "head")
  local lens = run_methods.plot_lens(fake):render "gp"
  check.yes(lens:find "'x'" and lens:find "'↵'" and lens:find "'·b'",
            "lens has its words")
  local top = run_methods.plot_top(fake):render "gp"
  check.yes(top:find "'75.0 %%'" and top:find "'·Mary'", "top has its words")
end

---- showing ----

-- Where standard output goes is what show() looks at: so in a child.
local LUA <const> = arg and arg[-1] or "lua5.4"
local function child(environment, code)
  local f = io.open(DIR .. "/child.lua", "w")
  f:write("local qkv = require 'qkv'\n", code)
  f:close()
  local p = io.popen(("cd %s && %s %s child.lua 2>&1"):format(DIR, environment,
                                                              LUA))
  local out = p:read "a"
  p:close()
  return out
end
-- a relative interpreter or module path does not survive `cd`
local reachable = child("", "print 'here'") == "here\n"
if not reachable then
  check.skip "the interpreter cannot be started again from another folder"
end
local SHOW <const> = "qkv.plot.line({1, 4, 9}, {title = 'A b/c'}):show()"
if reachable and gnuplot then
  local text = child("QKV_GRAPHICS=none", SHOW .. SHOW)
  check.equal(text, "plots/001-a-b-c.png\nplots/002-a-b-c.png\n", "paths")
  check.yes(slurp(DIR .. "/plots/002-a-b-c.png"), "the file is there")
  text = child("QKV_GRAPHICS=text", SHOW)
  check.yes(text:find "⣀" or text:find "⡠" or text:find "⠔", "braille")
  check.yes(text:find "plots/003%-a%-b%-c.png\n$", "path after the sketch")
  text = child("QKV_GRAPHICS=kitty", SHOW)
  check.equal(text:sub(1, 27), "\27_Gf=100,a=T,q=2,m=1;iVBORw", "kitty")
  check.equal(text:sub(-3), "\27\\\n", "kitty's end")
  text = child("QKV_GRAPHICS=iterm", SHOW)
  check.yes(text:find "^\27%]1337;File=inline=1;size=%d+:iVBORw", "iTerm2")
  text = child("QKV_GRAPHICS=sixel", SHOW)
  check.yes(text:find "^\27P", "sixel")
  -- colours and every kind, without an error
  for _, env in ipairs {"TERM=dumb", "TERM=xterm NO_COLOR=1", "TERM=xterm",
                        "TERM=xterm COLORTERM=truecolor"} do
    text = child("QKV_GRAPHICS=text " .. env, [[
      local p = qkv.plot
      local t = {{1, 2, 0/0}, {-3, 4, 5}}
      for _, x in ipairs {p.heatmap(t, {rows = {"日本", "b"}}), p.bar(t[2]),
        p.histogram(t), p.attention({t, t}), p.attention({{1}}), p.heatmap {},
        p.bar {}, p.line {}, p.scatter {}, p.attention {}, p.histogram {},
        p.scatter({{1, 2}, {3, 4}}, {labels = {"é", "b"}}), p.line {t[1], t[2]},
        p.grid {p.line {1, 2}, p.bar {0/0}}} do x:show() end
      print "fine"]])
    check.yes(text:find "fine\n$", env .. ": " .. text:sub(-300))
    check.equal(text:find "\27" ~= nil, env:find "xterm" ~= nil
                and not env:find "NO_COLOR", env .. " colours")
  end
end

---- what may go wrong ----

local function failing(what, environment, code, pattern_wanted)
  if not reachable then return end
  local text = child(environment, ("local p = qkv.plot.line({1, 2})\n"
    .. "local ok, e = pcall(function() %s end)\nprint(ok, e)"):format(code))
  check.yes(text:find "^false" and text:find(pattern_wanted),
            what .. ": " .. text)
end
local EMPTY <const> = "PATH=/nonexistent"
if LUA:find "/" then
  failing("no gnuplot", EMPTY, "p:save 'none.png'",
          "apt%-get install gnuplot%-nox")
  check.yes(not slurp(DIR .. "/none.png"), "nothing half-written")
  failing("no gnuplot, show", EMPTY .. " QKV_GRAPHICS=none", "p:show()",
          "source is in plots/%d+%-line.gp")
  check.yes(child(EMPTY, "qkv.plot.line({1, 2}):save 'none.gp' print 'ok'")
            == "ok\n" and slurp(DIR .. "/none.gp"), ".gp needs no gnuplot")
else
  check.skip "PATH cannot be emptied: the interpreter is found by it"
end
if gnuplot then
  failing("no such folder", "", "p:save 'nowhere/x.png'",
          "cannot write nowhere/x.png")
  failing("a folder", "", "p:save 'plots/'", "ends in none")
  failing("NUL", "", "p:save 'a\\0b.png'", "zero byte")
  local f = io.open(DIR .. "/gnuplot", "w")
  f:write "#!/bin/sh\necho 'cannot open shared object' >&2\nexit 127\n"
  f:close()
  run("chmod +x " .. DIR .. "/gnuplot")
  failing("gnuplot fails", 'PATH="$PWD:$PATH"', "p:save 'f.png'",
          "exit status 127%); it said: cannot open shared object")
  check.yes(not slurp(DIR .. "/f.png"), "nothing half-written")
  os.remove(DIR .. "/gnuplot")
  if run "test -w /dev/full" then
    run(("rm -rf %s/full; ln -s /dev/full %s/x.png"):format(DIR, DIR))
  end
  if not run "test \"$(id -u)\" = 0" then
    run("mkdir " .. DIR .. "/locked; chmod 555 " .. DIR .. "/locked")
    failing("read-only folder", "", "p:save 'locked/x.png'",
            "locked/x.png: Permission denied")
    run("chmod 755 " .. DIR .. "/locked")
  else
    check.skip "root may write to a read-only folder"
  end
  -- a limit on the size of files stands for a full disk
  if reachable then
    local text = child("ulimit -f 2; trap '' XFSZ;",
      "local p = qkv.plot.line({1, 2})\nprint(pcall(p.save, p, 'big.png'))")
    check.yes(text:find "^false.*breaks off", "full disk: " .. text)
    check.yes(not listing(DIR):find "big", "nothing half-written")
  end
end

run("rm -rf " .. DIR)
check.done()

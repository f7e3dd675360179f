-- topics.lua - pages of the help that belong to no function
local _, doc = ...

doc("start", "", [[
`qkv smollm2` opens a model as `m`; m = qkv.open(path) does so at the prompt.
Run a text, and every activation has a name: m:sites() lists them. The last
value is `_`; ?m:run tells more, and so does ? before any other name.
> m
> r = m:run "one two three"
> r:top(5)
> r("pattern", 3)
> r:plot_attention(3)
> m:generate("one two", {n = 10})]])

doc("indices", "", [[
Layers, heads, positions, tokens and tensor axes count from 0, as in papers
and in the names of hooks; Lua tables count from 1, as Lua does.

t[0] is the first, t[-1] the last: negative indices count from the end.
Ranges are half-open: {from = 0, to = 5} is 0, 1, 2, 3, 4.
An axis is named, "head", or numbered from 0, or from the end with -1.
t[i] with everything indexed is a number; with less, a tensor that shares
t's memory. t:at{head = 7, query = 5} names the axes, t:slice takes ranges,
t:take lists. for i, row in pairs(t) counts i from 0.
t.shape, t.axes and t:table() are Lua tables: t.shape[1] is the size of
axis 0.
> t = qkv.arange(6):reshape(2, 3)
> t[1][-1] == 5
> t.shape[1] == 2
> t:slice{[1] = {from = 0, to = 2}}.shape[2] == 2]])

doc("tensors", "", [[
A tensor is numbers with a shape and, where they mean something, names of
axes. It prints as one line: type, sizes, mean and standard deviation, range,
how many elements are nan or inf. t:print() shows the elements.

qkv.tensor{{1, 2}, {3, 4}}, qkv.zeros(2, 3), qkv.randn({2, 3}, {seed = 1})
make them; + - * / ^ work element by element, with numbers on either side;
t:matmul(u), qkv.einsum("i d, j d -> i j", a, b) multiply. Two tensors
broadcast from the right; where both name an axis, the names must agree:
t:rename{query = "pos"} gives other names.
Arithmetic is float32. Reductions take an axis, t:sum "head", or give a
number, t:sum(). A result without axes is a number.
Methods give new tensors; those that end in _ write in place: fill_ copy_
add_ sub_ mul_ div_, and t[i] = u, t:set({head = 7}, u). What comes out of a
run or a file is read-only: t:clone() first.
Weights in blocks (q4_1, ...) know rows and products; t:float() unpacks them.
> t = qkv.tensor{{1, 2}, {3, 4}}
> (2 * t + 1):sum() == 24
> t:sum(0)[1] == 6]])

doc("files", "", [[
t:save(path) and qkv.load(path): .npy, .csv, .tsv hold one tensor, .npz and
.safetensors several by name: qkv.save("x.npz", {a = t, b = u}). NumPy reads
what qkv writes, and the other way round. A file is written under another name
and renamed when it is whole.]])

doc("errors", "", [[
Every error is one sentence that says what was wrong, with the value, and what
was expected; the session goes on with nothing lost. Misspelt options, fields
and names are errors that offer the nearest name. How a computation is stopped:
help "interrupt".]])

doc("interrupt", "", [[
Ctrl-C stops whatever runs, within a tenth of a second, with the error
"interrupted", and the prompt is there again; at the prompt it gives up the
line. Three calls cannot be stopped half-way and end first: one of LAPACK (svd,
pca, eigh, qr, cholesky, solve, lstsq of a large matrix), one of Lua's string
library (find, rep of a long text), one table.sort. A third Ctrl-C does not
wait for them: it ends the program.]])

doc("numbers", "", [[
Tensors hold float32: about seven digits. Lua's own numbers are float64, so a
number that went through a tensor is the float32 nearest to it:
qkv.tensor{0.1}[0] is 0.10000000149012. Compare with a tolerance: t:near(u).
Sums and means accumulate in float64. The same input on the same machine gives
the same bits, whatever the number of threads. Random numbers start from seed 0
in each session: qkv.seed(n) starts them again.
> qkv.tensor{0.1}:near{0.1}]])

doc("transformerlens", "", [[
Names of activations are those of TransformerLens's HookedTransformer:
blocks.5.attn.hook_pattern, or "pattern", 5. What differs:

weights      raw, as in the file: nothing is folded, centred or rotated
             (from_pretrained folds layer norms and centres writing weights
             unless told not to).
ln*.hook_normalized
             after gain and bias, what the next matrix reads. TransformerLens
             has the same for LayerNorm, but the value before the gain for
             RMSNorm.
hook_k, hook_v, hook_rot_k, W_K, W_V
             count key-value heads: with grouped heads they are fewer than the
             query heads, and are not repeated.
hook_q, hook_k
             with bias, before any norm of q and k, before rotary.
             hook_rot_q, hook_rot_k: after both.
hook_attn_scores
             scaled and soft-capped; -inf where a query may not look.
axes         a run of one text has no batch axis: [pos, d_model]. They have
             names: pattern is [head, query, key].
BERT         hook_embed is the token embedding alone, hook_full_embed the sum
             after its LayerNorm; hook_normalized_resid_post is what leaves a
             block.
indices      count from 0 everywhere, and from the end when negative.]])

doc("sweeps", "", [[
What if this were otherwise? r:fork{edits = ...} is the run with a change, or
r:fork{from = 5, tokens = " Paris"} with other words from position 5 on; it
shares with r all that cannot differ, so that it costs only the layers and
positions where a change is felt. r:forks{...} are many as one batch.

qkv.patch puts values of one run into another at every cell of a grid,
qkv.ablate takes them away; both say what each cell does to a metric:
qkv.logit_diff(" Mary", " John"), logprob, prob, loss, kl, or a function of a
run that gives a number. Runs may be batches: s.value is the mean over
sequences, s.sd their spread, s.each all of them. Ctrl-C gives the cells that
are done, the others as nan. r:dla(metric) splits a logit into what each layer,
head or source position wrote.

Clean and corrupt have the same number of tokens, and words carry the space
before them: " Mary". scripts/examples/ioi.lua is a whole study.
> a, b = m:run{1, 2, 3}, m:run{1, 4, 3}
> s = qkv.patch{clean = a, corrupt = b, site = "resid_pre", axes = {"layer", "pos"}, metric = qkv.logit_diff(5, 6)}
> s.value.axes[1] == "layer"
> a:fork{tokens = {7}}.tokens:size(0) == 4]])

"""forms/: variants of a tiny byte-level BPE, and what Hugging Face's tokenizers makes
of texts with them: one form of tokenizer.json each. tokenizers 0.23.3, seed 7.
In the folder of oracles: python tokenizers/make_forms.py tokenizers/forms 40 7"""
import copy, json, random, sys
from tokenizers import Tokenizer

base = json.load(open('gpt2/tokenizer.json'))
bits = list("abcdeist the  and qzQZ") + ["'s", "'RE", "'ll", "'d", " ", "  ", "   ", "\n", "\r\n", "\t", "\u0085", "\u00a0",
  "\u180e", "\u200b", "\u3000", "\u2028", "\u200d", "1", "22", "333", "4444", "\u0663", "\u00bd", "\u2167", "\u4e2d\u6587",
  "e\u0301", "\u00e9", "caf\u00e9", "cafe\u0301", "the", " the ", "a\u0308\u0323", "\uac00", "\u1100\u1161", "\U0001F600",
  "\U0001F469\u200d\U0001F680", "\u24b6", "_", "-", "...", "!?", "<l>", "<r>", "<lr>", " <l> ", " <r>  ", "  <lr>  ", "<l><", "na\u00ef",
  "<n>", " <n> ", "nai\u0308", "<|endoftext|>", " <|im_end|> ", "<|pad|", "\u0301", "\u0122", "\u00c3", "\x00", "\u0e01\u0e33", "\u093f\u0915", "/", "A", "BC"]
def texts(n, r):
    yield ""
    for i in range(n):
        yield "".join(r.choice(bits) for _ in range(r.choice([1, 2, 3, 6, 10, 20, 40])))
def train():
    """A vocabulary whose merges cross every border that a split can draw."""
    from tokenizers import models, trainers, pre_tokenizers
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    special = ['<|pad|>', '<|endoftext|>', '<|im_end|>']
    t.train_from_iterator(list(texts(3000, random.Random(1))), trainers.BpeTrainer(
        vocab_size=520, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=8))
    return json.loads(t.to_str())['model']

base['model'] = train()
N = len(base['model']['vocab'])

def added(content, id, **flags):
    row = dict(id=id, content=content, single_word=False, lstrip=False,
               rstrip=False, normalized=False, special=False)
    row.update(flags)
    return row

BL = lambda **k: dict(dict(type='ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=True), **k)
SP = lambda p, b, inv=False, kind='Regex': {'type': 'Split', 'pattern': {kind: p}, 'behavior': b, 'invert': inv}
SEQ = lambda *s: {'type': 'Sequence', 'pretokenizers': list(s)}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
NR = BL(use_regex=False)
forms = {}
def form(name, **k):
    d = copy.deepcopy(base)
    for key, v in k.items():
        if key == 'more': d['added_tokens'] += v
        elif key == 'model': d['model'].update(v)
        else: d[key] = v
    forms[name] = d
form('prefix', pre_tokenizer=BL(add_prefix_space=True))
form('bare', pre_tokenizer=NR)
form('llama3', pre_tokenizer=SEQ(SP(LLAMA3, 'Isolated'), NR), model={'ignore_merges': True},
     post_processor={'type': 'Sequence', 'processors': [BL(), {'type': 'TemplateProcessing',
        'single': [{'SpecialToken': {'id': '<|endoftext|>', 'type_id': 0}}, {'Sequence': {'id': 'A', 'type_id': 0}}],
        'pair': [{'SpecialToken': {'id': '<|endoftext|>', 'type_id': 0}}, {'Sequence': {'id': 'A', 'type_id': 0}},
                 {'SpecialToken': {'id': '<|endoftext|>', 'type_id': 1}}, {'Sequence': {'id': 'B', 'type_id': 1}}],
        'special_tokens': {'<|endoftext|>': {'id': '<|endoftext|>', 'ids': [1], 'tokens': ['<|endoftext|>']}}}]})
form('o200k', pre_tokenizer=SEQ(SP(O200K, 'Isolated'), NR))
form('digits', pre_tokenizer=SEQ({'type': 'Digits', 'individual_digits': False}, BL()))
form('digits_each', pre_tokenizer=SEQ({'type': 'Digits', 'individual_digits': True}, BL()))
form('removed', pre_tokenizer=SEQ(SP(r'\s+', 'Removed'), BL()))
form('removed_inverted', pre_tokenizer=SEQ(SP(r'\w+|[^\w\s]', 'Removed', True), NR))
form('previous', pre_tokenizer=SEQ(SP(r'[aeiou ]', 'MergedWithPrevious'), NR))
form('next', pre_tokenizer=SEQ(SP(r'[aeiou ]', 'MergedWithNext'), NR))
form('contiguous', pre_tokenizer=SEQ(SP(r'[aeiou \d]', 'Contiguous'), NR))
form('literal', pre_tokenizer=SEQ(SP("e.", 'Isolated', kind='String'), SP(' ', 'MergedWithNext', kind='String'), NR))
form('added', normalizer={'type': 'NFC'}, more=[
    added('<l>', N, lstrip=True), added('<r>', N+1, rstrip=True), added('<lr>', N+2, lstrip=True, rstrip=True),
    added('the', N+3, single_word=True), added('caf\u00e9', N+4, normalized=True), added('  ', N+5),
    added('<l><', N+6, special=True), added('na\u00ef', N+7), added('<n>', N+8, lstrip=True, rstrip=True, single_word=True, normalized=True)])
form('nfc', normalizer={'type': 'Sequence', 'normalizers': [{'type': 'NFC'}]})
m = copy.deepcopy(base)
v = m['model']['vocab']
gone = set('zq\u0122\u00c3')      # of these four bytes nothing is left
for k in [k for k in v if set(k) & gone]: del v[k]
m['model']['merges'] = [x for x in m['model']['merges'] if not set(''.join(x)) & gone]
m['model']['unk_token'] = '<|pad|>'
forms['unknown'] = m
m = copy.deepcopy(m); m['model']['fuse_unk'] = True; forms['unknown_fused'] = m
m = copy.deepcopy(m); m['model']['unk_token'] = None; forms['left_out'] = m
form('roberta', post_processor={'type': 'RobertaProcessing', 'sep': ['<|im_end|>', 2], 'cls': ['<|endoftext|>', 1], 'trim_offsets': True, 'add_prefix_space': False})
form('bert', post_processor={'type': 'BertProcessing', 'sep': ['<|im_end|>', 2], 'cls': ['<|endoftext|>', 1]})

def rows(t, n, seed):
    r = random.Random(seed)
    for s in texts(n, r):
        e, es = t.encode(s, add_special_tokens=False), t.encode(s)
        o = dict(text=s, ids=e.ids, ids_special=es.ids)
        yield o
out, n = sys.argv[1], int(sys.argv[2])
for name, d in forms.items():
    p = f'{out}/{name}.json'
    json.dump(d, open(p, 'w'), ensure_ascii=True, separators=(',', ':'))
    t = Tokenizer.from_file(p)
    for row in d['added_tokens']:       # ids as the library gives them
        row['id'] = t.token_to_id(row['content'])
    json.dump(d, open(p, 'w'), ensure_ascii=True, separators=(',', ':'))
    with open(f'{out}/{name}.jsonl', 'w') as f:
        for o in rows(t, n, int(sys.argv[3]) if len(sys.argv) > 3 else 7):
            f.write(json.dumps(o, separators=(',', ':')) + '\n')
        a, b = "the cat", "a dog's"
        e = t.encode(a, b)
        f.write(json.dumps(dict(text=a, pair=b, ids_special=e.ids, types=e.type_ids), separators=(',', ':')) + '\n')

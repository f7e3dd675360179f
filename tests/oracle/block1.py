"""block1.py OUT ORACLE: an oracle without what is of block 0.

python3 block1.py mistral ../../oracles/mistral

The oracles are those that test_model.c names (Hugging Face transformers
5.23.0, torch 2.13.0, float32). An error in block 0 reaches block 1, where all
sites are compared; half the bytes are saved. Needs nothing but Python 3.
"""
import json
import os
import shutil
import struct
import sys

out, oracle = sys.argv[1:]
os.makedirs(out, exist_ok=True)
for name in ("config.json", "model.safetensors"):
    shutil.copyfile(f"{oracle}/{name}", f"{out}/{name}")
with open(f"{oracle}/activations.safetensors", "rb") as f:
    size, = struct.unpack("<Q", f.read(8))
    header, data = json.loads(f.read(size)), f.read()
kept, body = {}, b""
for name, entry in header.items():
    if name == "__metadata__" or name.startswith("blocks.0."):
        continue
    begin, end = entry["data_offsets"]
    kept[name] = dict(entry, data_offsets=[len(body), len(body) + end - begin])
    body += data[begin:end]
text = json.dumps(kept, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
with open(f"{out}/activations.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + body)

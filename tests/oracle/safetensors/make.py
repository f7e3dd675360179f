"""make.py - types.safetensors: one tensor of each type, and one that begins at
an odd byte. safetensors 0.8's serialize_file sorts wide types first, so the
file is put together by hand and read back by the library.

Element i is (i - 2) * 1.5 (signed), i * 7 (unsigned) or i % 3 == 0 (BOOL).
"""
import json
import struct
import numpy as np
from safetensors import safe_open

KINDS = {"U8": "u1", "BOOL": "b1", "I8": "i1", "U16": "<u2", "I16": "<i2",
         "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2",
         "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
header, data = {"__metadata__": {"made": "by hand", "odd": "\u0000\u2028"}}, b""
for word, kind in KINDS.items():
    i = np.arange(5)
    signed = (i - 2) * 1.5
    if word == "BF16":
        a = (signed.astype("<f4").view("<u4") >> 16).astype(kind)
    elif word == "BOOL":
        a = i % 3 == 0
    else:
        a = (i * 7 if word[0] == "U" else signed).astype(kind)
    header[word] = {"dtype": word, "shape": [5],
                    "data_offsets": [len(data), len(data) + a.nbytes]}
    data += a.tobytes()
header["scalar"] = {"dtype": "F32", "shape": [],
                    "data_offsets": [len(data), len(data) + 4]}
data += struct.pack("<f", 2.5)
header["empty"] = {"dtype": "F32", "shape": [3, 0],
                   "data_offsets": [len(data), len(data)]}
header["f8"] = {"dtype": "F8_E4M3", "shape": [2],
                "data_offsets": [len(data), len(data) + 2]}
data += b"\x38\x40"
text = json.dumps(header).encode()
with open("types.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + data)
with safe_open("types.safetensors", "numpy") as f:
    assert set(f.keys()) == set(header) - {"__metadata__"}
    assert np.array_equal(f.get_tensor("I16"), [-3, -1, 0, 1, 3])

"""make.py - the .npy and .npz of this folder, as NumPy writes them

Element i of each array is (i - 3) * 1.5 (signed), i * 7 (unsigned) or
i % 3 == 0 (b1), i counting in C order. NumPy 2.4.
"""
import numpy as np
from numpy.lib import format as npy


def values(kind, shape):
    i = np.arange(int(np.prod(shape))).reshape(shape)
    if kind[1] == "b":
        return (i % 3 == 0).astype(kind)
    return (i * 7 if kind[1] == "u" else (i - 3) * 1.5).astype(kind)


def write(name, array, version=(1, 0)):
    with open(name, "wb") as f:
        npy.write_array(f, array, version)


all_kinds = {}
for kind in "|b1 |u1 |i1 <u2 <i2 <u4 <i4 <u8 <i8 <f2 <f4 <f8".split():
    all_kinds[kind[1:]] = values(kind, (2, 4))
    if kind[0] == "<":
        all_kinds[kind[1:] + "_big"] = values(">" + kind[1:], (2, 4))
np.savez("stored.npz", **all_kinds)
np.savez_compressed("deflated.npz", **all_kinds)
write("v1.npy", values("<f4", (2, 3, 4)))
write("v2.npy", values("<f4", (5,)), (2, 0))
write("v3.npy", values("<i4", ()), (3, 0))
write("fortran.npy", np.asfortranarray(values(">f8", (2, 3, 4))))
write("empty.npy", values("<f4", (0, 3)))
write("complex.npy", np.zeros(3, "<c8"))
write("record.npy", np.zeros(3, [("a", "<f4")]))
np.save("object.npy", np.array([None]), allow_pickle=True)

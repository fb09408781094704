#!/usr/bin/env python3
"""Write the files of this directory with the formats' own libraries, for tests/proto to read.

    pip install numpy safetensors
    python3 tests/golden/wire/make_wire.py

Unless a name says otherwise, a file holds 0, 1, 2, 3, 4, 5 as (2, 3); bool holds 0, 1, 0, 1, 0, 1.
"""
import gzip
import pathlib
import struct

import numpy as np
import safetensors

here = pathlib.Path(__file__).parent
values = np.arange(6).reshape(2, 3)


def save_npy(name, array, version=(1, 0)):
    with open(here / f"{name}.npy", "wb") as file:
        np.lib.format.write_array(file, array, version=version)


for dtype in ["f4", "f8", "f2", "i1", "u1", "i2", "u2", "i4", "u4", "i8"]:
    save_npy(f"little_{dtype}", values.astype("<" + dtype))
    if not dtype.endswith("1"):
        save_npy(f"big_{dtype}", values.astype(">" + dtype))
save_npy("little_b1", values % 2 == 1)
save_npy("fortran_f4", np.asfortranarray(values.astype("<f4")))
save_npy("fortran_big_i2", np.asfortranarray(values.astype(">i2")))
save_npy("version2_f4", values.astype("<f4"), (2, 0))
save_npy("version3_f4", values.astype("<f4"), (3, 0))
save_npy("scalar_f8", np.array(2.5))
save_npy("vector_i8", np.arange(6))
save_npy("empty_f4", np.zeros((0, 3), "<f4"))
save_npy("special_f4", np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4028235e38], "<f4"))
save_npy("special_f2", np.array([np.nan, np.inf, -np.inf, -0.0, 2.0**-24, 65504], "<f2"))
# Refused: types without a place here.
save_npy("refused_c8", values.astype("<c8"))
save_npy("refused_u8", values.astype("<u8"))
save_npy("refused_text", np.array(["a", "b"]))
save_npy("refused_struct", np.zeros(2, [("a", "<f4"), ("b", "<i4")]))


tensors = {
    "float32": values.astype("<f4"),
    "float64": values.astype("<f8"),
    "float16": values.astype("<f2"),
    "bfloat16": (values.astype("<f4").view("<u4") >> 16).astype("<u2"),
    "int8": values.astype("i1"),
    "uint8": values.astype("u1"),
    "int16": values.astype("<i2"),
    "uint16": values.astype("<u2"),
    "int32": values.astype("<i4"),
    "uint32": values.astype("<u4"),
    "int64": values.astype("<i8"),
    "bool": values % 2 == 1,
    "scalar": np.array(2.5, "<f4"),
    "empty": np.zeros((0, 3), "<f4"),
    'a "quoted" \\ name, \u00e9\u4e2d\U0001f600': np.array([7], "u1"),
}
specs = {
    name: safetensors.TensorSpec(
        dtype="bfloat16" if name == "bfloat16" else array.dtype.name,  # which numpy does not know
        shape=array.shape,
        data_ptr=array.ctypes.data,
        data_len=array.nbytes,
    )
    for name, array in tensors.items()
}
(here / "all.safetensors").write_bytes(safetensors.serialize(specs, {"format": "pt", "note": "line\nbreak"}))

idx = struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3) + values.astype("u1").tobytes()
(here / "plain.idx").write_bytes(idx)
(here / "packed.idx.gz").write_bytes(gzip.compress(idx, mtime=0))
(here / "two_members.gz").write_bytes(gzip.compress(idx[:10], mtime=0) + gzip.compress(idx[10:], mtime=0))
(here / "float64.idx").write_bytes(struct.pack(">BBBBI", 0, 0, 14, 1, 6) + values.astype(">f8").tobytes())

#!/usr/bin/python3
"""What a network of make_models.py predicts with a state_dict of somebody else's, loaded strictly.

    /usr/bin/python3 tests/golden/predict.py NAME STATE OUTPUT

STATE: a safetensors file. OUTPUT: where the prediction for the golden file's input goes, as safetensors.
"""

import json
import os
import struct
import sys

import numpy
import torch

from make_golden import HERE, write_safetensors
from make_models import MODELS

NUMPY = {"F32": numpy.float32, "I64": numpy.int64}


def read_safetensors(path):
    with open(path, "rb") as file:
        bytes_ = file.read()
    begin = 8 + struct.unpack("<Q", bytes_[:8])[0]
    header = json.loads(bytes_[8:begin])
    header.pop("__metadata__", None)
    tensors = {}
    for key, entry in header.items():
        first, last = [begin + offset for offset in entry["data_offsets"]]
        values = numpy.frombuffer(bytes_[first:last], NUMPY[entry["dtype"]])
        tensors[key] = torch.from_numpy(values.reshape(entry["shape"]).copy())
    return tensors


def main():
    name, state, output = sys.argv[1:]
    torch.set_num_threads(1)
    net = MODELS[name][0]()
    net.load_state_dict(read_safetensors(state), strict=True)
    net.eval().double()
    x = read_safetensors(os.path.join(HERE, "models", name + ".safetensors"))["input"]
    with torch.no_grad():
        y = net(x.double() if x.is_floating_point() else x)
    write_safetensors(os.path.abspath(output), {"output": y.float()})


if __name__ == "__main__":
    main()

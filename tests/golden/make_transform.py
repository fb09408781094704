#!/usr/bin/python3
"""Write transform.* with real PyTorch: what becomes of samples before they are fed.

    /usr/bin/python3 tests/golden/make_transform.py

Each case is done once without and once with what is random; the draws are splitmix64's, written down here a second time.
"""

import torch
import torch.nn.functional as F

from make_golden import write_json, write_safetensors

ROWS, SEED, EPOCHS = 4, 5, (0, 3)
MASK = (1 << 64) - 1
MNIST = {"scale": 0.00392156863, "mean": [0.1307], "std": [0.3081]}
COLOURS = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.243, 0.261]}

# name: dtype, shape of a sample, transform
CASES = {
    "nothing": ("float32", [3, 4], {}),
    "mnist_pad": ("uint8", [28, 28], {"pad": 2, **MNIST}),
    "mnist_resize": ("uint8", [28, 28], {"resize": [32, 32], **MNIST}),
    "smaller": ("uint8", [3, 9, 14], {"resize": [4, 5], "scale": 1 / 255, **COLOURS}),
    "taller_and_narrower": ("float32", [2, 6, 7], {"resize": [13, 3]}),
    "one_pixel": ("float32", [5, 4], {"resize": [1, 1]}),
    "from_one_pixel": ("int64", [1, 1], {"resize": [3, 2]}),
    "cifar": ("uint8", [3, 16, 16], {"crop": [16, 16], "crop_pad": 4, "flip": 0.5, "scale": 1 / 255, **COLOURS}),
    "crop": ("float32", [2, 11, 8], {"crop": [5, 5]}),
    "crop_of_even_and_odd_rest": ("float32", [9, 12], {"crop": [6, 5]}),
    "crop_of_padded": ("int64", [6, 5], {"pad": 3, "crop": [7, 9], "crop_pad": 2}),
    "crop_of_resized": ("uint8", [6, 5], {"resize": [9, 10], "crop": [8, 8], "flip": 0.3}),
    "flip": ("float32", [2, 4, 5], {"flip": 0.5}),
    "always_flip": ("uint8", [4, 5], {"flip": 1, "scale": 2}),
    "shift": ("uint8", [6, 7], {"shift": 2, "mean": [3]}),
    "far_shift": ("float32", [2, 4, 6], {"shift": 3}),
    "everything": ("uint8", [3, 10, 9], {"pad": 1, "crop": [9, 8], "crop_pad": 2, "flip": 0.6, "shift": 3,
                                         "scale": 1 / 255, **COLOURS}),
    "numbers": ("float32", [5], {"mean": [0.5], "std": [2]}),
    "a_number_each": ("int64", [4], {"mean": [1, 2, 3, 4], "std": [1, 10, 100, 3]}),
    "series": ("float32", [2, 6], {"mean": [1, -1], "std": [0.1]}),
    "one_number": ("float32", [], {"scale": 3, "mean": [1]}),
    "volume": ("uint8", [2, 2, 3, 2], {"scale": 0.5, "mean": [1, 2], "std": [3, 4]}),
}


def splitmix64(key, index):
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def shifted(x, axis, by):
    """In from zeros: x moved towards higher places."""
    size = x.shape[axis]
    zeros = torch.zeros_like(x.narrow(axis, 0, abs(by)))
    if by >= 0:
        return torch.cat([zeros, x.narrow(axis, 0, size - by)], axis)
    return torch.cat([x.narrow(axis, -by, size + by), zeros], axis)


def transform(x, t, key):
    """One sample. key: of what is random; None without."""
    if not set(t) <= {"scale", "mean", "std"}:
        x = x if x.dim() == 3 else x[None]
    if "resize" in t:
        x = F.interpolate(x[None], t["resize"], mode="bilinear", align_corners=False)[0]
    x = F.pad(x, 4 * [t["pad"]]) if "pad" in t else x

    def draw(index, most):
        return ((splitmix64(key, index) >> 32) * (most + 1)) >> 32

    if "crop" in t:
        rest = [x.shape[1] - t["crop"][0], x.shape[2] - t["crop"][1]]
        if key is None:
            top, left = (round(spare / 2) for spare in rest)
        else:
            x = F.pad(x, 4 * [t.get("crop_pad", 0)])
            top, left = (draw(i, rest[i] + 2 * t.get("crop_pad", 0)) for i in range(2))
        x = x[:, top:top + t["crop"][0], left:left + t["crop"][1]]
    if key is not None and "flip" in t and (splitmix64(key, 2) >> 11) * 2.0 ** -53 < t["flip"]:
        x = x.flip(-1)
    if key is not None and "shift" in t:
        for i in range(2):
            x = shifted(x, 1 + i, draw(3 + i, 2 * t["shift"]) - t["shift"])
    x = x * t.get("scale", 1)
    for name, do in (("mean", torch.sub), ("std", torch.div)):
        if name in t:
            numbers = torch.tensor(t[name], dtype=torch.float32)
            x = do(x, numbers.reshape([-1] + [1] * (x.dim() - 1)) if x.dim() else numbers[0])
    return x


def main():
    torch.manual_seed(0)
    tensors = {}
    for name, (dtype, shape, t) in CASES.items():
        rows = torch.randn([ROWS] + shape) if dtype == "float32" else torch.randint(0, 256, [ROWS] + shape)
        tensors[name + "/rows"] = rows
        samples = [row.float() for row in rows]
        tensors[name + "/plain"] = torch.stack([transform(x, t, None) for x in samples])
        for epoch in EPOCHS:
            key = splitmix64(SEED, epoch)
            tensors[f"{name}/{epoch}"] = torch.stack(
                [transform(x, t, splitmix64(key, i)) for i, x in enumerate(samples)])
    write_safetensors("transform.safetensors", tensors)
    write_json("transform.json", {name: {"dtype": dtype, "sample": shape, "transform": t}
                                  for name, (dtype, shape, t) in CASES.items()})


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Write heads.* with real PyTorch: networks of several outputs, and losses of several terms.

    /usr/bin/python3 tests/golden/make_heads.py

heads.json holds definitions as the daemon takes them, each with torch's autograd graph of its loss; the modules below
are the same networks. Numbers are computed in float64 and rounded once.
"""

import torch
import torch.nn as nn

from make_golden import walk, write_json, write_safetensors

STEPS = 50


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(6, 8)
        self.kind = nn.Linear(8, 3)
        self.box = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.trunk(x))
        return {"kind": self.kind(x), "box": self.box(x)}


class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 4), nn.Tanh())
        self.decoder = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        code = self.encoder(x)
        return {"reconstruction": self.decoder(code), "logits": self.head(code), "code": code}


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return {"output": self.fc(x)}


CODER = {
    "class_name": "Coder", "seed": 0, "inputs": {"picture": {"shape": [8]}},
    "layers": [
        {"type": "Sequential", "name": "encoder", "layers": [{"type": "Linear", "out_features": 4}, {"type": "Tanh"}]},
        {"type": "Sequential", "name": "decoder", "layers": [{"type": "Linear", "out_features": 8},
                                                             {"type": "Sigmoid"}]},
        {"type": "Linear", "name": "head", "inputs": ["encoder"], "out_features": 3}],
    "outputs": {"reconstruction": "decoder.1", "logits": "head", "code": "encoder"}}

# name: module, definition, targets, the loss as one writes it in torch, its terms
CASES = {
    "two_heads": (
        TwoHeads,
        {"class_name": "TwoHeads", "seed": 0, "input": {"shape": [6]},
         "layers": [{"type": "Linear", "name": "trunk", "out_features": 8}, {"type": "relu", "name": "act"},
                    {"type": "Linear", "name": "kind", "out_features": 3},
                    {"type": "Linear", "name": "box", "inputs": ["act"], "out_features": 2}],
         "outputs": ["kind", "box"],
         "loss": [{"type": "CrossEntropyLoss", "output": "kind"},
                  {"type": "SmoothL1Loss", "output": "box", "weight": 0.5}],
         "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        {"kind": ("classes", 3), "box": ("numbers", 2)},
        lambda y, t: (nn.CrossEntropyLoss()(y["kind"], t["kind"]), nn.SmoothL1Loss()(y["box"], t["box"])),
        lambda a, b: a + 0.5 * b),
    "coder": (
        Coder,
        {**CODER,
         "loss": [{"type": "MSELoss", "output": "reconstruction", "target": "@picture", "weight": 2},
                  {"type": "CrossEntropyLoss", "output": "logits", "target": "label",
                   "weight": [1.0, 2.0, 0.5], "loss_weight": 0.1},
                  {"type": "L1Loss", "output": "code", "weight": 0.25}],
         "optimizer": {"type": "Adam", "lr": 0.02}},
        {"label": ("classes", 3), "code": ("numbers", 4)},
        lambda y, t: (nn.MSELoss()(y["reconstruction"], t["@picture"]),
                      nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5], dtype=torch.double))(y["logits"], t["label"]),
                      nn.L1Loss()(y["code"], t["code"])),
        lambda a, b, c: 2 * a + 0.1 * b + 0.25 * c),
    "one_output": (
        Line,
        {"class_name": "Line", "seed": 0, "input": {"shape": [3]},
         "layers": [{"type": "Linear", "name": "fc", "out_features": 2}],
         "loss": [{"type": "SmoothL1Loss"}, {"type": "MSELoss", "weight": 0.1},
                  {"type": "MSELoss", "target": "other", "weight": -0.05}],
         "optimizer": {"type": "SGD", "lr": 0.1}},
        {"target": ("numbers", 2), "other": ("numbers", 2)},
        lambda y, t: (nn.SmoothL1Loss()(y["output"], t["target"]), nn.MSELoss()(y["output"], t["target"]),
                      nn.MSELoss()(y["output"], t["other"])),
        lambda a, b, c: a + 0.1 * b + -0.05 * c),
    "one_scaled": (
        Line,
        {"class_name": "Line", "seed": 0, "input": {"shape": [3]},
         "layers": [{"type": "Linear", "name": "fc", "out_features": 2}],
         "loss": [{"type": "MSELoss", "weight": 0.5}],
         "optimizer": {"type": "SGD", "lr": 0.1}},
        {"target": ("numbers", 2)},
        lambda y, t: (nn.MSELoss()(y["output"], t["target"]),),
        lambda a: 0.5 * a),
}
BATCH = 37  # more than a slice


def draw(kind, size, generator):
    if kind == "classes":
        return torch.randint(0, size, (BATCH,), generator=generator)
    return torch.randn((BATCH, size), generator=generator)


def from_outputs(name, net, x, generator, tensors):
    """Gradients of all outputs but the first: torch.autograd.backward(outputs, gradients)."""
    outputs = list(net(x).items())
    gradients = {key: torch.randn(value.shape, generator=generator) for key, value in outputs[1:]}
    if gradients:
        torch.autograd.backward([value for _, value in outputs[1:]], [g.double() for g in gradients.values()])
    for key, value in gradients.items():
        tensors["%s/gradient.%s" % (name, key)] = value
    for key, value in net.named_parameters():
        if value.grad is not None:
            tensors["%s/from_outputs.%s" % (name, key)] = value.grad.float()
    net.zero_grad(set_to_none=True)


def case_golden(name, tensors):
    network, definition, kinds, terms_of, total_of = CASES[name]
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(0)
    net = network()
    spec = definition.get("input") or definition["inputs"]["picture"]
    x = torch.rand((BATCH, spec["shape"][0]), generator=generator)
    targets = {key: draw(kind, size, generator) for key, (kind, size) in kinds.items()}
    tensors[name + "/input"] = x
    for key, value in targets.items():
        tensors["%s/target.%s" % (name, key)] = value
    net.double()
    x = x.double()
    targets = {key: value.double() if value.is_floating_point() else value for key, value in targets.items()}
    targets["@picture"] = x
    optimizer = getattr(torch.optim, definition["optimizer"]["type"])(
        net.parameters(), **{key: value for key, value in definition["optimizer"].items() if key != "type"})
    from_outputs(name, net, x, generator, tensors)
    losses, graph = [], None
    for step in range(STEPS):
        optimizer.zero_grad()
        outputs = net(x)
        terms = terms_of(outputs, targets)
        total = total_of(*terms)
        total.backward()
        losses.append([total.item(), *[term.item() for term in terms]])
        if step == 0:
            graph = walk(total)
            for key, value in outputs.items():
                tensors["%s/output.%s" % (name, key)] = value.float()
            for key, value in net.named_parameters():
                tensors["%s/grad.%s" % (name, key)] = value.grad.float()
        optimizer.step()
    tensors[name + "/losses"] = torch.tensor(losses)
    return {"definition": {"name": name, **definition}, "grad_fn": graph, "outputs": list(outputs),
            "targets": list(kinds)}


# losses by class indices, and which targets do not count
SCORED = [{"type": "NLLLoss"}, {"type": "NLLLoss", "ignore_index": 1}, {"type": "MultiMarginLoss"},
          {"type": "MultiMarginLoss", "p": 2, "margin": 0.5}, {"type": "CrossEntropyLoss", "ignore_index": 0}]


def scored_golden(tensors):
    """How many of a Linear's outputs have their largest element where the target says."""
    generator = torch.Generator().manual_seed(11)
    torch.manual_seed(0)
    net = nn.Linear(5, 4)
    x, y = torch.randn((BATCH, 5), generator=generator), torch.randint(0, 4, (BATCH,), generator=generator)
    tensors["scored/input"], tensors["scored/target"] = x, y
    right, rows = net(x).argmax(1) == y, []
    for spec in SCORED:
        counted = y != spec.get("ignore_index", -100)
        rows.append({"loss": spec, "correct": int((right & counted).sum()), "count": int(counted.sum())})
    return rows


def main():
    torch.set_num_threads(1)
    tensors = {}
    rows = {name: case_golden(name, tensors) for name in CASES}
    rows["scored"] = scored_golden(tensors)
    write_json("heads.json", rows)
    write_safetensors("heads.safetensors", tensors)


if __name__ == "__main__":
    main()

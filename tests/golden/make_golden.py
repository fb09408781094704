#!/usr/bin/python3
"""Write the golden files of this directory with real PyTorch.

Run it with an interpreter that has torch (Debian: python3-torch), for the families of samples that
changed (no name: everything):

    /usr/bin/python3 tests/golden/make_golden.py conv pool

Numbers are computed in float64 from float32 inputs and parameters and rounded to float32 at the end,
so that they are the nearest float32 to the true value and not one more float32 implementation's.
"""

import fnmatch
import glob
import inspect
import json
import os
import struct
import sys
import zlib

import numpy
import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {torch.float32: "F32", torch.int64: "I64"}


def write_safetensors(name, tensors, metadata=None):
    """tensors: dict of float32 and int64 tensors, written in the order given."""
    header, chunks, offset = {"__metadata__": metadata} if metadata else {}, [], 0
    # the wide elements first, so that every tensor is aligned to its element
    for key, value in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        data = value.detach().contiguous().numpy().tobytes()
        header[key] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape),
                       "data_offsets": [offset, offset + len(data)]}
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def write_text(name, text):
    with open(os.path.join(HERE, name), "w") as file:
        file.write(text)


def write_json(name, rows):
    """One row a line."""
    lines = ["%s: %s" % (json.dumps(key), json.dumps(value)) for key, value in rows.items()]
    write_text(name, "{\n" + ",\n".join(lines) + "\n}\n")


def walk(tensor):
    """The autograd graph behind a tensor as [[name, [next ids]]], numbered depth first from 0."""
    ids, nodes = {}, []

    def see(function):
        if function is None:
            return -1
        if function not in ids:
            ids[function] = len(nodes)
            node = [function.name().split("::")[-1], []]
            nodes.append(node)
            node[1] = [see(successor) for successor, _ in function.next_functions]
        return ids[function]

    see(tensor.grad_fn)
    return nodes


# ---- values ----------------------------------------------------------------------------------------

def values(kind, shape, generator):
    count = int(numpy.prod(shape))
    if kind == "distinct":  # evenly spaced and shuffled: no two alike, none at zero
        spaced = (torch.arange(count) + 0.25) * (4.0 / count) - 2.0
        return spaced[torch.randperm(count, generator=generator)].reshape(shape)
    if kind == "ties":
        return torch.randint(-1, 2, shape, generator=generator).float()
    x = torch.randn(shape, generator=generator)
    if kind == "positive":
        return x.abs() + 0.5
    if kind == "negative":
        return -x.abs() - 0.5
    if kind == "wide":  # from -30 to 30, denser around 0
        return torch.linspace(-1, 1, count).reshape(shape) ** 3 * 30
    if kind == "nan":
        draw = torch.randint(0, 12, shape, generator=generator)
        x[draw == 0] = float("nan")
        x[draw == 1] = float("-inf")
    return x


# ---- ops -------------------------------------------------------------------------------------------

def seed_of(row):
    """The same whatever rows stand around it."""
    return row.get("seed", zlib.crc32(row["name"].encode()) & 0x7FFFFFFF)


def as_module_arguments(row):
    arguments = dict(row["attributes"], **row.get("constructor", {}))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}


class Expression(nn.Module):
    """A row's "torch": an expression over inputs x0, x1 ..., its attributes and its parameters."""

    def __init__(self, row, generator):
        super().__init__()
        self.text, self.attributes = row["torch"], row["attributes"]
        for name, shape in row.get("parameters", {}).items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))

    def forward(self, *inputs):
        names = {"torch": torch, "F": F, "nn": nn, **self.attributes, **dict(self.named_parameters())}
        names.update({"x%d" % i: x for i, x in enumerate(inputs)})
        return eval(self.text, names)


def build_op(row, generator):
    if "torch" in row:
        return Expression(row, generator)
    if "build" in row:
        return eval(row["build"], {"nn": nn})
    arguments, kind = as_module_arguments(row), getattr(nn, row["op"])
    if "call" in row:  # some attributes are arguments of the call
        known = inspect.signature(kind).parameters
        arguments = {key: value for key, value in arguments.items() if key in known}
    return kind(**arguments)


def call_op(row, op, inputs):
    """A row's "call" is an expression over the module m and inputs x0, x1 ..."""
    if "call" not in row:
        return op(*inputs)
    return eval(row["call"], {"torch": torch, "m": op, **{"x%d" % i: x for i, x in enumerate(inputs)}})


def source(x):
    """x as the output of a Linear without bias fed with the identity: its weight's gradient is x's."""
    weight = x.reshape(x.shape[0], -1).t().contiguous().requires_grad_()
    made = F.linear(torch.eye(x.shape[0], dtype=x.dtype), weight)
    return made if x.dim() == 2 else made.view([-1] + list(x.shape[1:]))


def op_input(row, spec, generator):
    """A shape: float32 values of the row's kind; {"shape": ..., "integers": n}: int64 from 0 to n - 1;
    {"shape": ..., "constant": [...]}: these, and no batch axis."""
    if isinstance(spec, dict) and "constant" in spec:
        return torch.tensor(spec["constant"], dtype=torch.float32).reshape(spec["shape"])
    if isinstance(spec, dict):
        return torch.randint(0, spec["integers"], spec["shape"], generator=generator)
    return values(row.get("values", "normal"), spec, generator)


def flat(outputs):
    """Outputs within outputs, as LSTM's (output, (h, c)), in order."""
    return [x for item in outputs for x in (flat(item) if isinstance(item, tuple) else [item])]


def op_sample(row, tensors, graphs, reprs):
    torch.manual_seed(seed_of(row))
    generator = torch.Generator().manual_seed(seed_of(row))
    op = build_op(row, generator)
    if row.get("perturb"):  # away from ones and zeros
        with torch.no_grad():
            for value in op.state_dict().values():
                value += torch.rand(value.shape, generator=generator) if value.is_floating_point() else 3
    parameters = dict(op.named_parameters())
    name = row["name"]
    if "torch" not in row:
        reprs[name] = repr(op)
    for key, value in op.state_dict().items():
        tensors["%s/%s" % (name, key)] = value.detach().clone()
    op.double()
    op.train(not row.get("eval", False))
    fresh = {key: value.clone() for key, value in op.state_dict().items()}

    def run(inputs):
        op.load_state_dict(fresh)
        if getattr(op, "inplace", False):  # which torch refuses for a leaf
            inputs = [x.clone() if x.is_leaf and x.requires_grad else x for x in inputs]
        output = call_op(row, op, inputs)
        return flat(output)[row["read"]] if "read" in row else output

    inputs = [op_input(row, spec, generator) for spec in row["inputs"]]
    leaves = [x.double().requires_grad_() if x.is_floating_point() else x for x in inputs]
    output = run(leaves)
    gradient = torch.randn(output.shape, generator=generator)
    if output.requires_grad:
        output.backward(gradient.double())
    for i, (x, leaf) in enumerate(zip(inputs, leaves)):
        tensors["%s/input%d" % (name, i)] = x
        if x.is_floating_point() and leaf.grad is not None:
            tensors["%s/grad.input%d" % (name, i)] = leaf.grad.float()
    tensors[name + "/output"] = output.float() if output.is_floating_point() else output
    tensors[name + "/output_grad"] = gradient
    for key, value in parameters.items():
        if value.grad is not None:
            tensors["%s/grad.%s" % (name, key)] = value.grad.float()
    for key, value in op.named_buffers():
        tensors["%s/after.%s" % (name, key)] = value.float() if value.is_floating_point() else value
    if row.get("eval_differs"):  # running statistics as one training forward left them
        op.eval()
        evaluated = call_op(row, op, leaves)
        tensors[name + "/output_eval"] = (flat(evaluated)[row["read"]] if "read" in row else evaluated).float()
        op.train()
    plain = [x.double() if x.is_floating_point() else x for x in inputs]
    direct = run(plain)
    behind = run([source(x) if x.is_floating_point() else x for x in plain])
    if row.get("no_graph"):  # only whether there is one
        graphs[name] = {"direct": [1] if direct.requires_grad else [], "source": [1]}
    else:
        graphs[name] = {"direct": walk(direct), "source": walk(behind)}


# ---- losses ----------------------------------------------------------------------------------------

def build_loss(row):
    arguments = dict(row["attributes"])
    for name in {"weight", "pos_weight"} & set(arguments):
        arguments[name] = torch.tensor(arguments[name], dtype=torch.float64)
    return getattr(nn, row["loss"])(**arguments)


def loss_output(row, generator):
    """What a row's loss is given as the network's output: of its "values", or normal."""
    kind, shape = row.get("values"), row["output"]
    if kind == "probabilities":
        return torch.rand(shape, generator=generator) * 0.8 + 0.1
    if kind == "certain":  # probabilities, 0 and 1 among them
        return torch.randint(0, 5, shape, generator=generator).float() / 4
    if kind == "ties":
        return torch.randint(-2, 3, shape, generator=generator).float() / 2
    output = torch.randn(shape, generator=generator) * row.get("scale", 1)
    if kind == "log_probabilities":
        return torch.log_softmax(output, row.get("classes_axis", 1))
    if kind == "variance":  # what is stacked second
        output[:, 1] = output[:, 1].abs() + row.get("least", 0.25)
    return output.abs() + 0.25 if kind == "positive" else output


def loss_target(row, generator):
    kind, shape = row["target"], row.get("target_shape", row["output"])
    if kind == "none":
        return None
    if kind == "indices":
        target = torch.randint(0, shape[1], shape[:1] + shape[2:], generator=generator)
        if "ignored" in row:
            target.view(-1)[1::3] = row["ignored"]
        return target
    if kind == "sequences":  # labels other than the blank, input lengths, target lengths
        batch, steps, count = shape[0], shape[1], row["labels"]
        blank = row["attributes"].get("blank", 0)
        labels = torch.randint(0, shape[2] - 1, [batch, count], generator=generator)
        labels[labels >= blank] += 1
        inputs = steps - torch.randint(0, min(2, steps), [batch, 1], generator=generator)
        targets = count - torch.arange(batch).remainder(count + 1).unsqueeze(1)
        return torch.cat([labels, inputs, targets], 1)
    if kind == "label_sets":  # distinct classes, then -1, then whatever
        target = torch.stack([torch.randperm(shape[1], generator=generator) for _ in range(shape[0])])
        for i in range(shape[0]):
            if i % (shape[1] + 1) < shape[1]:
                target[i, i % (shape[1] + 1)] = -1
        return target
    return {
        "float": lambda: torch.randn(shape, generator=generator),
        "ties": lambda: torch.randint(-2, 3, shape, generator=generator).float() / 2,
        "probabilities": lambda: torch.softmax(torch.randn(shape, generator=generator), 1),
        "log_probabilities": lambda: torch.log_softmax(torch.randn(shape, generator=generator), 1),
        "unit": lambda: torch.rand(shape, generator=generator),
        "binary": lambda: torch.randint(0, 2, shape, generator=generator).float(),
        "signs": lambda: torch.randint(0, 2, shape, generator=generator).float() * 2 - 1,
        "counts": lambda: torch.randint(0, 6, shape, generator=generator).float(),
    }[kind]()


def apply_loss(row, loss, output, target):
    """Losses of several outputs get them from one, as engine/optim/packed.h says."""
    if row["loss"] == "GaussianNLLLoss":
        mean, variance = output.unbind(1)
        return loss(mean, target, variance)
    if row["loss"] in ("MarginRankingLoss", "CosineEmbeddingLoss"):
        return loss(*output.unbind(1), target)
    if row["loss"] == "TripletMarginLoss":
        return loss(*output.unbind(1))
    if row["loss"] == "CTCLoss":
        return loss(output.transpose(0, 1), target[:, :-2], target[:, -2], target[:, -1])
    return loss(output, target)


def loss_sample(row, tensors, graphs):
    generator = torch.Generator().manual_seed(seed_of(row))
    name = row["name"]
    output = loss_output(row, generator)
    target = loss_target(row, generator)
    loss = build_loss(row)
    leaf = output.double().requires_grad_()
    used = target if target is None or target.dtype == torch.int64 else target.double()
    value = apply_loss(row, loss, leaf, used)
    tensors[name + "/output"] = output
    if target is not None:
        tensors[name + "/target"] = target
    tensors[name + "/value"] = value.float()
    if value.dim() == 0:
        value.backward()
        tensors[name + "/grad.output"] = (torch.zeros(output.shape) if leaf.grad is None else leaf.grad).float()
    graphs[name] = {"source": walk(apply_loss(row, loss, source(output.double()), used))}


# ---- optimizers ------------------------------------------------------------------------------------

def documented_nadam():
    """torch.optim.NAdam as documented: torch 1.13 multiplies the next product of momenta by mu once too often."""
    module = sys.modules["torch.optim.nadam"]
    text = inspect.getsource(module._single_tensor_nadam)
    exec(text.replace("mu_product * mu * mu_next", "mu_product * mu_next"), module.__dict__)


def build_optimizer(row, parameters):
    """What newer versions of torch have and this one lacks is left to the caller of step()."""
    optimizer = getattr(torch.optim, row["optimizer"])
    known = inspect.signature(optimizer).parameters
    attributes = {key: value for key, value in row["attributes"].items() if key in known}
    if row["attributes"].get("decoupled_weight_decay"):
        del attributes["weight_decay"]
    return optimizer(parameters, **attributes), attributes.keys()


def optimizer_samples(rows, tensors):
    """Some steps of a Linear on one batch, every parameter kept after each of the first five and the last,
    and the optimizer's state after the last."""
    documented_nadam()
    torch.manual_seed(7)
    net = nn.Linear(4, 3)
    x, y = torch.randn(6, 4), torch.randn(6, 3)
    tensors.update({"input": x, "target": y, "layer.weight": net.weight.clone(),
                    "layer.bias": net.bias.clone()})
    start = {key: value.clone() for key, value in net.state_dict().items()}
    for row in rows:
        net = nn.Linear(4, 3)
        net.load_state_dict(start)
        net.double()
        attributes, steps = row["attributes"], row.get("steps", 5)
        optimizer, known = build_optimizer(row, net.parameters())
        for step in range(1, steps + 1):
            def closure():
                optimizer.zero_grad()
                parts = row.get("accumulate", 1)
                for part, target in zip(x.chunk(parts), y.chunk(parts)):
                    loss = nn.MSELoss()(net(part.double()), target.double())
                    loss.backward()
                return loss

            if row["optimizer"] != "LBFGS":
                closure()
            if "clip_grad_norm" in row:
                nn.utils.clip_grad_norm_(net.parameters(), row["clip_grad_norm"])
            if "clip_grad_value" in row:
                nn.utils.clip_grad_value_(net.parameters(), row["clip_grad_value"])
            for value in net.parameters():
                if attributes.get("maximize") and "maximize" not in known:
                    value.grad.neg_()
                if attributes.get("decoupled_weight_decay"):
                    value.data.mul_(1 - attributes["lr"] * attributes["weight_decay"])
            optimizer.step(*[closure] if row["optimizer"] == "LBFGS" else [])
            for key, value in net.named_parameters():
                if step <= 5 or step == steps:
                    tensors["%s/%d/layer.%s" % (row["name"], step, key)] = value.detach().float()
        for key, value in net.named_parameters():
            for slot, state in optimizer.state[value].items():
                if torch.is_tensor(state) and state.shape == value.shape:
                    tensors["%s/%s/layer.%s" % (row["name"], slot, key)] = state.float()


# ---- schedulers ------------------------------------------------------------------------------------

def build_scheduler(optimizer, kind, attributes):
    arguments = {key: value for key, value in attributes.items() if key not in ("type", "interval")}
    nested = [build_scheduler(optimizer, spec["type"], spec) for spec in arguments.pop("schedulers", [])]
    build = getattr(torch.optim.lr_scheduler, kind)
    if kind == "ChainedScheduler":
        return build(nested)
    if nested:
        arguments["schedulers"] = nested
    return build(optimizer, **arguments)


def scheduler_sample(row):
    """The rate (and momentum) of 200 steps, or as many as the row says, each followed by the scheduler's."""
    spec = {"type": "SGD", "lr": 0.1, **row.get("optimizer", {})}
    kind = getattr(torch.optim, spec.pop("type"))
    optimizer = kind([nn.Parameter(torch.ones(1))], **spec)
    scheduler = build_scheduler(optimizer, row["scheduler"], row["attributes"])
    group, lr, momentum = optimizer.param_groups[0], [], []
    metrics = row.get("metrics", [])
    for step in range(row.get("steps", 200)):
        lr.append(group["lr"])
        momentum.append(group["betas"][0] if "betas" in group else group["momentum"])
        optimizer.step()
        scheduler.step(*[metrics[step % len(metrics)]] if metrics else [])
    return {"lr": lr, "momentum": momentum} if len(set(momentum)) > 1 else {"lr": lr}


# ---- parameter groups ------------------------------------------------------------------------------

def grouped(spec, net):
    """torch's param_groups of an optimizer's spec: a parameter is in the first group that matches its name."""
    groups = spec.pop("param_groups")
    names = [[] for _ in range(len(groups) + 1)]
    for name, _ in net.named_parameters():
        patterns = [[group["params"]] if isinstance(group["params"], str) else group["params"] for group in groups]
        matches = [any(fnmatch.fnmatchcase(name, pattern) for pattern in some) for some in patterns]
        names[matches.index(True) + 1 if True in matches else 0].append(name)
    parameters = dict(net.named_parameters())
    return names, [{**group, "params": [parameters[name] for name in some]}
                   for group, some in zip([{}] + groups, names)]


def group_sample(row, start, x, y, tensors):
    net = grouped_net().double()
    net.load_state_dict(start)
    spec = dict(row["optimizer"])
    kind = getattr(torch.optim, spec.pop("type"))
    names, groups = grouped(spec, net)
    optimizer, scheduler = kind(groups, **spec), None
    if "scheduler" in row:
        scheduler = build_scheduler(optimizer, row["scheduler"]["type"], row["scheduler"])
    metrics, rates, momenta = row.get("metrics", []), [], []
    for step in range(1, 101):
        rates.append([group["lr"] for group in optimizer.param_groups])
        momenta.append([group["betas"][0] if "betas" in group else group.get("momentum", 0)
                        for group in optimizer.param_groups])
        optimizer.zero_grad()
        nn.MSELoss()(net(x.double()), y.double()).backward()
        optimizer.step()
        if scheduler:
            scheduler.step(*[metrics[step % len(metrics)]] if metrics else [])
        if step in (1, 10, 100):
            for key, value in net.named_parameters():
                tensors["%s/%d/%s" % (row["name"], step, key)] = value.detach().float()
    return {"members": names, **({"lr": rates, "momentum": momenta} if scheduler else {})}


def grouped_net():
    net = nn.Sequential()
    for name, module in (("fc1", nn.Linear(4, 5)), ("tanh", nn.Tanh()), ("bn1", nn.BatchNorm1d(5)),
                         ("fc2", nn.Linear(5, 3))):
        net.add_module(name, module)
    return net


def group_samples(rows, tensors):
    """100 steps of a small network on one batch; every group's rate and momentum before each."""
    documented_nadam()
    torch.manual_seed(3)
    net = grouped_net()
    x, y = torch.randn(8, 4), torch.randn(8, 3)
    tensors.update({"input": x, "target": y, **{key: value.clone() for key, value in net.named_parameters()}})
    start = {key: value.clone() for key, value in net.state_dict().items()}
    write_json("samples/groups.lr.json", {row["name"]: group_sample(row, start, x, y, tensors) for row in rows})


# ---- initialisers ----------------------------------------------------------------------------------

def initializer_sample(row, tensors):
    """A layer with torch's own first weights, then torch.nn.init on them."""
    torch.manual_seed(row["seed"])
    arguments = {key: tuple(value) if isinstance(value, list) else value
                 for key, value in row["layer"].items() if key != "type"}
    layer = getattr(nn, row["layer"]["type"])(**arguments)
    getattr(nn.init, row["initializer"])(layer.weight, **row["attributes"])
    tensors[row["name"]] = layer.weight.detach().clone()


# ---- LeNet -----------------------------------------------------------------------------------------

class Net(nn.Module):
    """The network of PyTorch's "Neural Networks" tutorial with its 3x3 convolutions."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


LENET_RUNS = {
    "momentum": {"lr": 0.01, "momentum": 0.9},
    "nesterov_weight_decay": {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005},
    "dampening_weight_decay": {"lr": 0.01, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.001},
}


def lenet():
    torch.manual_seed(0)
    return Net()


def lenet_golden():
    graphs = {}
    write_text("lenet_repr.txt", repr(lenet()))
    write_safetensors("lenet_init.safetensors", {k: v.clone() for k, v in lenet().state_dict().items()})

    generator = torch.Generator().manual_seed(42)
    x = torch.randn(4, 1, 32, 32, generator=generator)
    targets = {"MSELoss": torch.randn(4, 10, generator=generator),
               "CrossEntropyLoss": torch.randint(0, 10, (4,), generator=generator)}
    tensors = {"input": x}
    for kind, target in targets.items():
        net = lenet().double()
        output = net(x.double())
        loss = getattr(nn, kind)()(output, target if target.dtype == torch.int64 else target.double())
        loss.backward()
        tensors["output"] = output.float()
        tensors[kind + "/target"] = target
        tensors[kind + "/value"] = loss.float()
        for key, value in net.named_parameters():
            tensors["%s/grad.%s" % (kind, key)] = value.grad.float()
        graphs["lenet_" + kind] = walk(loss)
    graphs["lenet"] = walk(lenet()(x))
    write_safetensors("lenet.safetensors", tensors)

    x = torch.randn(32, 1, 32, 32, generator=generator)
    y = torch.randint(0, 10, (32,), generator=generator)
    tensors = {"input": x, "target": y}
    for name, attributes in LENET_RUNS.items():
        net = lenet().double()
        optimizer = torch.optim.SGD(net.parameters(), **attributes)
        losses = []
        for step in range(100):
            rows = slice(step % 4 * 8, step % 4 * 8 + 8)
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(net(x[rows].double()), y[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        tensors[name + "/losses"] = torch.tensor(losses)
        if name == "momentum":
            for key, value in net.named_parameters():
                tensors["%s/%s" % (name, key)] = value.detach().float()
    write_safetensors("lenet_steps.safetensors", tensors)
    write_json("lenet_runs.json", LENET_RUNS)
    write_json("lenet_grad_fn.json", graphs)


# ---- initialisation and random numbers --------------------------------------------------------------

INIT = [  # type, attributes, one sample's shape
    ("Conv2d", {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 5), "groups": 2}, [4, 8, 8]),
    ("Linear", {"in_features": 11, "out_features": 7, "bias": False}, [11]),
    ("Conv2d", {"in_channels": 6, "out_channels": 3, "kernel_size": 2, "bias": False}, [6, 8, 8]),
    ("Linear", {"in_features": 1, "out_features": 700}, [1]),
    ("Embedding", {"num_embeddings": 5, "embedding_dim": 3}, [2]),
    ("Embedding", {"num_embeddings": 9, "embedding_dim": 7, "padding_idx": 2}, [2]),
    ("Embedding", {"num_embeddings": 3, "embedding_dim": 2, "padding_idx": -1}, [2]),
    ("LSTM", {"input_size": 3, "hidden_size": 5, "num_layers": 2, "bidirectional": True, "proj_size": 2,
              "batch_first": True}, [4, 3]),
    ("MultiheadAttention", {"embed_dim": 6, "num_heads": 2, "batch_first": True}, [4, 6]),
    ("Conv1d", {"in_channels": 2, "out_channels": 5, "kernel_size": 3}, [2, 9]),
    ("ConvTranspose2d", {"in_channels": 4, "out_channels": 3, "kernel_size": 2}, [4, 5, 5]),
    ("GRU", {"input_size": 2, "hidden_size": 3, "batch_first": True}, [4, 2]),
    ("Linear", {"in_features": 3, "out_features": 2}, [3]),
]


def init_golden():
    tensors, rows = {}, {}
    for seed in (0, 1, 4294967295, 123456789012345):
        torch.manual_seed(seed)
        for index, (kind, attributes, _) in enumerate(INIT):
            for key, value in getattr(nn, kind)(**attributes).named_parameters():
                tensors["seed_%d/%d.%s" % (seed, index, key)] = value.detach().clone()
    rows = {str(index): {"shape": shape, "layer": {"type": kind, **attributes}}
            for index, (kind, attributes, shape) in enumerate(INIT)}
    write_json("init.json", rows)
    write_safetensors("init.safetensors", tensors)

    tensors = {}
    for seed in (0, 12345):
        words = numpy.random.RandomState(seed).randint(0, 2**32, 1000, dtype=numpy.uint32)
        torch.manual_seed(seed)
        uniform = torch.rand(1000)
        expected = (words & 0xFFFFFF).astype(numpy.float32) * numpy.float32(2.0**-24)
        assert (expected == uniform.numpy()).all(), "numpy and torch draw the same words"
        tensors["seed_%d/u32" % seed] = torch.tensor(words.astype(numpy.int64))
        tensors["seed_%d/uniform" % seed] = uniform
        torch.manual_seed(seed)
        for count in (1000, 16, 5, 33, 4, 1, 15):
            tensors["seed_%d/normal_%d" % (seed, count)] = torch.empty(count).normal_()
        generator = torch.Generator().manual_seed(seed)
        tensors["seed_%d/randperm_100" % seed] = torch.randperm(100, generator=generator)
        tensors["seed_%d/randperm_100_again" % seed] = torch.randperm(100, generator=generator)
    write_safetensors("rng.safetensors", tensors)


RANDOM = {
    "dropout": ("Dropout", {"p": 0.3}, [4, 30]),
    "dropout_half": ("Dropout", {}, [3, 2, 5, 4]),
    "dropout1d": ("Dropout1d", {"p": 0.4}, [5, 4, 3]),
    "dropout2d": ("Dropout2d", {"p": 0.25}, [5, 6, 2, 2]),
    "alpha_dropout": ("AlphaDropout", {"p": 0.2}, [4, 30]),
    "rrelu": ("RReLU", {}, [4, 30]),
    "rrelu_range": ("RReLU", {"lower": -0.5, "upper": 0.75}, [4, 30]),
    "rnn": ("RNN", {"input_size": 3, "hidden_size": 4, "num_layers": 2, "dropout": 0.4, "batch_first": True}, [2, 5, 3]),
    "lstm": ("LSTM", {"input_size": 3, "hidden_size": 4, "num_layers": 3, "dropout": 0.4, "batch_first": True}, [2, 5, 3]),
    "gru": ("GRU", {"input_size": 3, "hidden_size": 4, "num_layers": 2, "dropout": 0.4, "batch_first": True}, [2, 5, 3]),
    "attention": ("MultiheadAttention", {"embed_dim": 4, "num_heads": 2, "dropout": 0.4, "batch_first": True}, [3, 5, 4]),
    "encoder_layer": ("TransformerEncoderLayer", {"d_model": 4, "nhead": 2, "dim_feedforward": 6, "dropout": 0.4,
                                                  "batch_first": True}, [3, 5, 4]),
}


def drawn(layer, x):
    """The first of what a layer gives out, fed with x."""
    output = layer(x, x, x, need_weights=False) if isinstance(layer, nn.MultiheadAttention) else layer(x)
    return output[0] if isinstance(output, tuple) else output


def random_golden():
    """Two forwards in training, one after the other, of layers that draw. For draws as on a CPU without MKL:
    with MKL torch's bernoulli_ has another generator."""
    assert not torch.backends.mkl.is_available()
    tensors, rows = {}, {}
    for name, (kind, attributes, shape) in RANDOM.items():
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(5)
        layer = getattr(nn, kind)(**attributes)
        tensors.update({name + "/input": x, name + "/first": drawn(layer, x), name + "/second": drawn(layer, x)})
        rows[name] = {"type": kind, **attributes}
    write_safetensors("random.safetensors", tensors)
    write_json("random.json", rows)


def family_golden(family):
    """samples/FAMILY.json -> samples/FAMILY.safetensors, and what torch shows of them beside it."""
    with open(os.path.join(HERE, "samples", family + ".json")) as file:
        samples = json.load(file)
    graphs, reprs, tensors = {}, {}, {}
    for row in samples.get("ops", []):
        op_sample(row, tensors, graphs, reprs)
    for row in samples.get("losses", []):
        loss_sample(row, tensors, graphs)
    if "optimizers" in samples:
        optimizer_samples(samples["optimizers"], tensors)
    if "schedulers" in samples:
        write_json("samples/%s.lr.json" % family, {row["name"]: scheduler_sample(row)
                                                   for row in samples["schedulers"]})
    if "groups" in samples:
        group_samples(samples["groups"], tensors)
    for row in samples.get("initializers", []):
        initializer_sample(row, tensors)
    write_safetensors("samples/%s.safetensors" % family, tensors)
    write_json("samples/%s.grad_fn.json" % family, graphs)
    write_json("samples/%s.repr.json" % family, reprs)


def main():
    torch.set_num_threads(1)
    files = sorted(glob.glob(os.path.join(HERE, "samples", "*.json")))
    families = [name for name in (os.path.basename(path)[:-5] for path in files) if "." not in name]
    for family in sys.argv[1:] or families:
        family_golden(family)
    if not sys.argv[1:]:
        lenet_golden()
        init_golden()
        random_golden()


if __name__ == "__main__":
    main()

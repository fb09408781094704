#!/usr/bin/python3
"""Write lbfgs.json and lbfgs.safetensors with real PyTorch: steps of torch.optim.LBFGS, and its line search alone.

    /usr/bin/python3 tests/golden/make_lbfgs.py

Numbers are computed in float64 and rounded once. L-BFGS carries rounding errors on and on, so after some steps
float32 goes another way than float64. Of each run are kept the steps on which torch's own float32, from parameters
that differ in their last bits, still evaluates as often as float64 does and each time changes the loss by more
than rounding can, and the parameters of those on which it agrees to 5e-6.
"""

import math

import torch
import torch.nn as nn
from torch.optim.lbfgs import _strong_wolfe

from make_golden import write_json, write_safetensors

WOLFE = {"line_search_fn": "strong_wolfe"}


# ---- steps -----------------------------------------------------------------------------------------

def logistic():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(6, 4))
    return net, nn.CrossEntropyLoss(), torch.randn(64, 6), torch.randint(4, (64,))


def mlp():
    torch.manual_seed(11)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(64, 3)
    return net, nn.MSELoss(), x, torch.stack([(x[:, 0] * x[:, 1]).tanh(), x[:, 2].sin()], 1)


NETWORKS = {"logistic": logistic, "mlp": mlp}

RUNS = [  # attributes, steps, max_norm of clip_grad_norm_ within the closure
    ({}, 3, 0), (WOLFE, 3, 0),
    ({"max_iter": 1}, 5, 0), ({"max_iter": 5}, 5, 0),
    ({"max_iter": 1, **WOLFE}, 5, 0), ({"max_iter": 5, **WOLFE}, 5, 0),
    ({"lr": 0.5}, 3, 0), ({"lr": 0.5, **WOLFE}, 3, 0),
    ({"lr": 0.02, "max_iter": 4, **WOLFE}, 4, 0), ({"lr": 30, "max_iter": 4, **WOLFE}, 4, 0),
    ({"lr": 300, "max_iter": 4, **WOLFE}, 4, 0),
    ({"history_size": 3, "max_iter": 8}, 3, 0), ({"history_size": 3, "max_iter": 8, **WOLFE}, 3, 0),
    ({"history_size": 1, "max_iter": 4}, 3, 0),
    ({"max_eval": 4}, 4, 0), ({"max_eval": 4, **WOLFE}, 4, 0),
    ({"tolerance_grad": 1e-2}, 3, 0), ({"tolerance_grad": 1e-2, **WOLFE}, 3, 0),
    ({"tolerance_change": 1e-3}, 3, 0), ({"tolerance_change": 1e-3, **WOLFE}, 3, 0),
    ({"max_iter": 1}, 1, 0.01), ({"max_iter": 2}, 3, 0.3), ({"max_iter": 2, **WOLFE}, 3, 0.3),
]


def run(network, attributes, steps, max_norm, dtype, nudge=0):
    """Of each step: the losses of all evaluations, and the parameters after."""
    net, loss, x, y = NETWORKS[network]()
    net, x = net.to(dtype), x.to(dtype)
    generator = torch.Generator().manual_seed(nudge)
    for value in net.parameters():
        value.data *= 1 + (1e-7 * torch.randn(value.shape, generator=generator) if nudge else 0)
    y = y.to(dtype) if y.is_floating_point() else y
    optimizer = torch.optim.LBFGS(net.parameters(), **attributes)
    losses, parameters = [], []

    def closure():
        optimizer.zero_grad()
        value = loss(net(x), y)
        value.backward()
        losses[-1].append(value.item())
        if max_norm:
            nn.utils.clip_grad_norm_(net.parameters(), max_norm)
        return value

    for _ in range(steps):
        losses.append([])
        assert optimizer.step(closure).item() == losses[-1][0]
        parameters.append({key: value.clone() for key, value in net.state_dict().items()})
    return losses, parameters


def apart(a, b):
    """As tests/support.c measures it."""
    return max(((a[key] - b[key]).abs() / (a[key].abs() + a[key].pow(2).mean().sqrt())).max().item() for key in a)


def changes(losses):
    """Every time by more than float32's rounding."""
    return all(abs(a - b) > 5e-7 * abs(a) for a, b in zip(losses, losses[1:]))


def lead(good):
    """How many are good before the first that is not."""
    return good.index(False) if False in good else len(good)


def sample(network, attributes, steps, max_norm, tensors):
    name = "%s %s" % (network, " ".join("%s=%s" % item for item in attributes.items()) or "default")
    name += " clipped" if max_norm else ""
    losses, wide = run(network, attributes, steps, max_norm, torch.double)
    narrow = [run(network, attributes, steps, max_norm, torch.float, nudge) for nudge in range(8)]
    steps = min(lead([len(a) == len(b) and changes(a) for a, b in zip(losses, other[0])]) for other in narrow)
    kept = min(lead([apart(a, b) < 5e-6 for a, b in zip(wide[:steps], other[1])]) for other in narrow)
    for step in range(kept):
        for key, value in wide[step].items():
            tensors["%s/%d/%s" % (name, step + 1, key)] = value.float()
    return {"name": name, "network": network, "attributes": attributes, "clip_grad_norm": max_norm,
            "evaluations": [len(step) for step in losses[:steps]],
            "losses": [step[0] for step in losses[:kept + 1][:steps]], "kept": kept}


# ---- the line search alone --------------------------------------------------------------------------

FUNCTIONS = {  # of t, downhill at 0; tests/engine/line_search_test.c has the same
    "parabola": lambda t: (t - 1) ** 2,
    "rational": lambda t: -t / (t * t + 2),
    "quintic": lambda t: (t + 0.004) ** 5 - 2 * (t + 0.004) ** 4,
    "waves": lambda t: (t - 2) ** 2 / 10 - torch.sin(5 * t),
    "downhill": lambda t: -t,
    "decay": lambda t: torch.exp(-t),
    "cliff": lambda t: torch.where(t < 5e23, -t, t),
    "kink": lambda t: (t - 1).abs(),
    "wall": lambda t: -torch.log(1 - t) - 3 * t,
    "quartic": lambda t: t ** 4 - 3 * t ** 3 + 2 * t ** 2 - t,
}


def line(function, first):
    """Every t that is tried for the first one, and the one that is found."""
    tried = []

    def evaluate(x, t, d):
        at = (x + t * d).detach().requires_grad_()
        value = FUNCTIONS[function](at).sum()
        value.backward()
        if float(t) != 0 or tried:
            tried.append(float(t))
        return float(value), at.grad

    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    loss, grad = evaluate(zero, 0, one)
    _, _, t, count = _strong_wolfe(evaluate, zero, first, one, loss, grad, grad.dot(one))
    assert count == len(tried) and not any(math.isinf(t) for t in tried)
    text = [t if t == t else "NaN" for t in tried + [float(t)]]
    return {"function": function, "tried": text[:-1], "found": text[-1]}


def main():
    torch.set_num_threads(1)
    tensors, rows, lines = {}, [], []
    for network, make in NETWORKS.items():
        net, _, x, y = make()
        tensors.update({network + "/input": x, network + "/target": y})
        tensors.update({"%s/%s" % (network, key): value for key, value in net.state_dict().items()})
        rows += [row for row in (sample(network, *given, tensors) for given in RUNS) if row["evaluations"]]
    for function in FUNCTIONS:
        lines += [line(function, first) for first in (1e-4, 0.1, 0.9, 2.5, 40.0)]
    write_safetensors("lbfgs.safetensors", tensors)
    write_json("lbfgs.json", {**{"run %d" % i: row for i, row in enumerate(rows)},
                              **{"line %d" % i: row for i, row in enumerate(lines)}})


if __name__ == "__main__":
    main()

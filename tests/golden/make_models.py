#!/usr/bin/python3
"""Write models/ with real PyTorch: the networks of clients/examples, each as its own torch module.

    /usr/bin/python3 tests/golden/make_models.py [NAME ...]

Modules are built after torch.manual_seed(0), so that the engine's own parameters must be these to the bit.
Loss and optimizer are those of the example's file. Numbers are computed in float64 and rounded once.
"""

import json
import os
import sys

import torch
import torch.nn as nn

from make_golden import HERE, Net, write_json, write_safetensors

EXAMPLES = os.path.join(HERE, "..", "..", "clients", "examples")
SMALL = 512  # elements of a parameter whose gradient is kept whole; of others the norm


# ---- networks --------------------------------------------------------------------------------------

class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.layers = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
                                    nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(self.flatten(x))


class VGG(nn.Module):
    """Configuration A of "Very Deep Convolutional Networks" with batch norm, for 32x32 pictures."""

    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, 10)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class BasicBlock(nn.Module):
    """Named as torchvision's."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False),
                                            nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet(nn.Module):
    """ResNet-20 of "Deep Residual Learning", section 4.2, with projections as shortcuts (option B)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self.stage(16, 16, 1)
        self.layer2 = self.stage(16, 32, 2)
        self.layer3 = self.stage(32, 64, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    @staticmethod
    def stage(channels, width, stride):
        return nn.Sequential(BasicBlock(channels, width, stride), BasicBlock(width, width, 1),
                             BasicBlock(width, width, 1))

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
                                     nn.Conv2d(32, 64, 7))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(64, 32, 7), nn.ReLU(),
                                     nn.ConvTranspose2d(32, 16, 3, 2, 1, 1), nn.ReLU(),
                                     nn.ConvTranspose2d(16, 1, 3, 2, 1, 1), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))


class CharLSTM(nn.Module):
    """Scores of each time's next character, the classes on axis 1 as CrossEntropyLoss wants them."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(65, 16)
        self.lstm = nn.LSTM(16, 64, batch_first=True)
        self.head = nn.Linear(64, 65)

    def forward(self, x):
        return self.head(self.lstm(self.embedding(x))[0]).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Classes of sequences of 16 words out of 100."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(100, 32)
        self.positions = nn.Embedding(16, 32)
        self.blocks = nn.Sequential(Block(32, 4), Block(32, 4))
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.embedding(x) + self.positions(torch.arange(16))
        return self.head(self.norm(self.blocks(x)).mean(1))


class Idle(nn.Module):
    def forward(self, x):
        return torch.tanh(x)


class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 6)
        self.act = nn.ReLU()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Tanh(), nn.Linear(6, 6, bias=False)))

    def forward(self, x):
        return x + self.body(self.act(self.fc1(x)))


class Blocks(nn.Module):
    """Blocks within blocks, for tests/engine/blocks_test.c."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 6)
        self.units = nn.Sequential(Unit(), Unit())
        self.idle = Idle()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.idle(self.units(self.stem(x))))


# ---- what they are fed with ------------------------------------------------------------------------

def pictures(*shape):
    """Normal noise and random classes."""
    return lambda g: (torch.randn(shape, generator=g), torch.randint(0, 10, shape[:1], generator=g))


def itself(*shape):
    """The target is the input: it is written only once."""
    return lambda g: (torch.rand(shape, generator=g), None)


def words(shape, count, target, classes):
    """Random integers, and random classes."""
    return lambda g: (torch.randint(0, count, shape, generator=g), torch.randint(0, classes, target, generator=g))


# Steps of a size at which rounding does not grow: at the examples' own rates these two are chaotic on so small
# a batch. Torch's float32 and float64 part by 1e-2 within five steps; of resnet20 by 4e-4 within fifty at 0.0002,
# as soon as its input's last bits change, and by 8e-5 at the rate and with the seed below.
RATES = {"vgg11": 0.001, "resnet20": 0.0001}
# Drawn from another seed than 42 where with that one rounding moves a value past a ReLU's or a max-pool's kink: then
# a sample's share of a gradient comes or goes, and torch's float32 and float64 part by 5e-3 (with this one by 5e-6).
SEEDS = {"vgg11": 43, "resnet20": 44}
# example: its network, its batch
MODELS = {
    "lenet": (Net, pictures(3, 1, 32, 32)),
    "mlp": (MLP, pictures(5, 1, 28, 28)),
    "vgg11": (VGG, pictures(8, 3, 32, 32)),
    "resnet20": (ResNet, pictures(8, 3, 32, 32)),
    "autoencoder": (Autoencoder, itself(4, 1, 28, 28)),
    "char_lstm": (CharLSTM, words((3, 32), 65, (3, 32), 65)),
    "transformer": (Transformer, words((6, 16), 100, (6,), 4)),
}
STEPS = {"resnet20": 50, "char_lstm": 50, "transformer": 50}  # of the others 8
# Those whose state_dict after the steps is written as models/NAME.state.safetensors.
SAVED = ("resnet20", "char_lstm", "transformer")


def definition(name):
    folder = "" if name == "lenet" else "models"
    with open(os.path.join(EXAMPLES, folder, name + ".json")) as file:
        return json.load(file)


def build(module, spec, *arguments):
    attributes = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
    return getattr(module, attributes.pop("type"))(*arguments, **attributes)


def bits(value):
    """The sum of a float32 tensor's bits, as unsigned words."""
    words = value.detach().contiguous().view(torch.int32) if value.dtype == torch.float32 else value
    return int((words.long() & 0xFFFFFFFF).sum())


def model_golden(name):
    network, batch = MODELS[name]
    spec = definition(name)
    torch.manual_seed(spec["seed"])
    net = network()
    spec["optimizer"]["lr"] = RATES.get(name, spec["optimizer"]["lr"])
    write_json("models/%s.json" % name, {"repr": repr(net), "state_dict": list(net.state_dict()),
                                         "lr": spec["optimizer"]["lr"]})
    x, y = batch(torch.Generator().manual_seed(SEEDS.get(name, 42)))
    tensors = {"input": x, "init": torch.tensor([bits(value) for value in net.state_dict().values()])}
    if y is None:
        y = x
    else:
        tensors["target"] = y
    net.double()
    x, y = [value.double() if value.is_floating_point() else value for value in (x, y)]
    loss_of = build(nn, spec["loss"])
    optimizer = build(torch.optim, spec["optimizer"], net.parameters())
    losses = []
    for step in range(STEPS.get(name, 8)):
        optimizer.zero_grad()
        output = net(x)
        loss = loss_of(output, y)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            tensors["output"] = output.float()
            tensors["grad_norm"] = torch.tensor([value.grad.norm().item() for value in net.parameters()])
            for key, value in net.named_parameters():
                if value.numel() <= SMALL:
                    tensors["grad." + key] = value.grad.float()
        optimizer.step()
    net.float().eval()
    if name in SAVED:
        write_safetensors("models/%s.state.safetensors" % name, dict(sorted(net.state_dict().items())),
                          {"format": "pt"})  # the bytes that safetensors.torch.save_file() writes
    tensors["losses"] = torch.tensor(losses)
    tensors["predicted"] = net.double()(x).float()  # by the network as the steps have left it, in float32
    write_safetensors("models/%s.safetensors" % name, tensors)


def blocks_golden():
    torch.manual_seed(0)
    net = Blocks()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(42))
    write_json("models/blocks.json", {"repr": repr(net), "state_dict": list(net.state_dict())})
    write_safetensors("models/blocks.safetensors", {"input": x, "output": net.double()(x.double()).float()})


def main():
    torch.set_num_threads(1)
    os.makedirs(os.path.join(HERE, "models"), exist_ok=True)
    for name in sys.argv[1:] or [*MODELS, "blocks"]:
        if name == "blocks":
            blocks_golden()
        else:
            model_golden(name)


if __name__ == "__main__":
    main()

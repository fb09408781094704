"""PyTorch's side of the bench. First answer: torch's version. Then for every line
"NAME TASK BATCH THREADS" a child answers "ready VALUE PID", and to every line "STEPS" the seconds they
took, until "0": that is answered with the child's peak memory in KiB, and the child ends. (A child for each
workload, so that its memory is its own; torch is imported once.) A line "job FOLDER BATCH THREADS" is for
torch_job.py, which answers with one of JSON."""

import os
import sys
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import torch_threads


class LeNet(nn.Module):
    sample, output = (1, 32, 32), (10,)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class MLP(nn.Sequential):
    sample, output = (1024,), (10,)

    def __init__(self):
        super().__init__(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


class VGG(nn.Sequential):
    sample, output = (1, 32, 32), (10,)

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10))


class BasicBlock(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet20(nn.Module):
    sample, output = (3, 32, 32), (10,)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.layer3 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class LSTM(nn.Module):
    sample, output = (64,), (64, 64)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(64, 128)
        self.lstm = nn.LSTM(128, 256, batch_first=True)
        self.head = nn.Linear(256, 64)

    def forward(self, x):
        return self.head(self.lstm(self.embedding(x))[0]).transpose(1, 2)


class Transformer(nn.Module):
    sample, output = (64,), (64, 64)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(64, 128)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True), 2)
        self.head = nn.Linear(128, 64)

    def forward(self, x):
        return self.head(self.encoder(self.embedding(x))).transpose(1, 2)


NETS = {"lenet": LeNet, "mlp": MLP, "vgg": VGG, "resnet20": ResNet20, "lstm": LSTM, "transformer": Transformer}


def batch_of(net, batch):
    """The same numbers as workloads.c makes."""

    def scatter(shape):
        return (np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(2654435761)).reshape(shape)

    integers = isinstance(next(net.children()), nn.Embedding)
    x, y = scatter((batch, *net.sample)), scatter((batch, *net.output[1:]))
    x = (x >> 16).astype(np.int64) % 64 if integers else (x >> 8).astype(np.float32) * np.float32(2**-23) - 1
    return torch.from_numpy(x), torch.from_numpy((y >> 16).astype(np.int64) % net.output[0])


def stepper(name, task, batch):
    """A function that takes one step: a loss, or in predict the first output, comes back."""
    torch.manual_seed(0)
    net, criterion = NETS[name](), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    x, y = batch_of(net, batch)

    def train():
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()  # the others report each step's loss, too

    def predict():
        with torch.no_grad():
            return net(x).view(-1)[0].item()

    net.train(task == "train")
    return train if task == "train" else predict


def peak_memory():
    with open("/proc/self/status", encoding="ascii") as status:
        return next(line.split()[1] for line in status if line.startswith("VmHWM"))


def serve(name, task, batch, threads):
    step = stepper(name, task, int(batch))
    value = step()
    settle = torch_threads.use(int(threads), step)
    print("ready %.9g %d" % (value, os.getpid()), flush=True)
    while steps := int(sys.stdin.readline() or 0):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        seconds = time.perf_counter() - start
        settle()
        print("%.9f" % seconds, flush=True)
    print(peak_memory(), flush=True)


def answer(name, task, batch, threads):
    if name == "job":
        import torch_job
        torch_threads.use(int(threads), stepper("lenet", "train", int(batch)))
        torch_job.run(LeNet, task)
    else:
        serve(name, task, batch, threads)


def main():
    print(torch.__version__, flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            answer(*line.split())
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()

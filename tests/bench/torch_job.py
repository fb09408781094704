"""PyTorch's side of a job: LeNet on MNIST as a user of torch would train it, the images ready in memory."""

import gzip
import json
import os
import time

import numpy as np
import torch
import torch.nn as nn

EPOCHS, BATCH = 3, 64


def read(folder, name, offset):
    with gzip.open(os.path.join(folder, name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def split(folder, name):
    images = torch.from_numpy(read(folder, name + "-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).copy())
    labels = torch.from_numpy(read(folder, name + "-labels-idx1-ubyte.gz", 8).astype(np.int64))
    images = nn.functional.pad(images.float() / 255, (2, 2, 2, 2))
    return (images - 0.1307) / 0.3081, labels


def train(make_net, data, epochs, turn=False):
    """All losses, and the network. turn: each batch's rows the other way round, which is the same sum."""
    images, labels = data
    torch.manual_seed(0)
    net, criterion = make_net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            rows = rows.flip(0) if turn else rows
            optimizer.zero_grad()
            loss = criterion(net(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, net


def accuracy(net, data):
    net.eval()
    with torch.no_grad():
        right = sum((net(x).argmax(1) == y).sum().item() for x, y in zip(data[0].split(1000), data[1].split(1000)))
    return right / len(data[0])


def run(make_net, folder):
    """One line of JSON."""
    data, test = split(folder, "train"), split(folder, "t10k")
    begin = time.perf_counter()
    losses, net = train(make_net, data, EPOCHS)
    right = accuracy(net, test)
    seconds = time.perf_counter() - begin
    turned, _ = train(make_net, data, 1, turn=True)
    print(json.dumps({"seconds": seconds, "accuracy": right, "losses": losses, "turned": turned}), flush=True)

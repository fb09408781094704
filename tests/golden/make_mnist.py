#!/usr/bin/python3
"""Write mnist_losses.json with real PyTorch: LeNet on MNIST, the loss of each of the first 200 steps.

    /usr/bin/python3 tests/golden/make_mnist.py FOLDER    # with MNIST's files, train-images-idx3-ubyte.gz ...

The run is that of clients/examples/lenet.json with batches of 64, pad 2, scale 1/255, mean 0.1307, std 0.3081 and seed 0,
in float64. About 200 steps are comparable: in float32 the losses of PyTorch itself part from these by 5e-6 until then and
by 1e-2 from step 250 on, where rounding has grown to the size of a step; its epoch's mean is 0.3475 to 0.3479,
whatever the last bits of its input.
"""

import gzip
import os
import sys

import numpy
import torch
import torch.nn.functional as F

from make_golden import Net, write_json

STEPS, BATCH = 200, 64


def read(folder, name, header):
    with gzip.open(os.path.join(folder, name)) as file:
        return torch.from_numpy(numpy.frombuffer(file.read(), numpy.uint8, offset=header).copy())


def main():
    folder = sys.argv[1]
    labels = read(folder, "train-labels-idx1-ubyte.gz", 8).long()
    images = read(folder, "train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).float()
    images = (F.pad(images, (2, 2, 2, 2)) * numpy.float32(1 / 255) - 0.1307) / 0.3081
    torch.manual_seed(0)
    net = Net().double()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    losses = []
    for batch in order.split(BATCH)[:STEPS]:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images[batch].double()), labels[batch])
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 8))
    write_json("mnist_losses.json", {"losses": losses})


if __name__ == "__main__":
    main()

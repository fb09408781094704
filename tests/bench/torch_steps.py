"""PyTorch's side of the bench: reads "BATCH STEPS" lines, runs that many LeNet training steps on a batch
of that size, answers with the seconds they took. First argument: threads. First answer: the version."""

import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
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


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    net, criterion = Net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    batches = {}
    print(torch.__version__, flush=True)
    for line in sys.stdin:
        batch, steps = map(int, line.split())
        if batch not in batches:
            batches[batch] = torch.randn(batch, 1, 32, 32), torch.randint(0, 10, (batch,))
        x, y = batches[batch]
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            loss.item()  # the others report each step's loss, too
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()

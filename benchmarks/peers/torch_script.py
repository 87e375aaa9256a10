"""Train in PyTorch: eager mode, channels-last, its fused `nn.LSTM`, bfloat16 by autocast.

    python benchmarks/peers/torch_script.py cnn data/prepared

The layers are those of settings.yaml, whose batch size and dropout `bench.py` passes; the optimizer
is PyTorch's default Adam, without augmentation. On a GPU (`--device cuda`), the data stay on the
card and products use TF32. Prints a JSON object with the seconds of each epoch, validation
included. Some steps warm up first.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("model", choices=["cnn", "lstm", "hybrid"])
parser.add_argument("folder", help="folder of the prepared arrays")
parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
parser.add_argument("--fraction", type=float, default=1.0, help="of the training set")
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--device", default="cpu")
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--dropout", type=float, default=0.0)
arguments = parser.parse_args()
torch.manual_seed(1)
device = torch.device(arguments.device)
if device.type == "cuda":
    torch.set_float32_matmul_precision("high")  # TF32


def load(part):
    """Return images, float32 (n, 1, height, width) in channels-last memory order, and labels."""
    x = np.load(f"{arguments.folder}/x_{part}.npy")
    y = np.load(f"{arguments.folder}/y_{part}.npy").astype("int64")
    n = round(len(x) * arguments.fraction) if part == "train" else len(x)
    images = torch.from_numpy(x[:n].astype("float32") / 255).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=torch.channels_last)
    return images.to(device), torch.from_numpy(y[:n]).to(device)


(x_train, y_train), (x_val, y_val) = load("train"), load("val")


def convolutions():
    for before, filters in ((1, 32), (32, 64)):
        yield nn.Conv2d(before, filters, 3)
        yield nn.ReLU()
        yield nn.MaxPool2d(2)
        yield nn.BatchNorm2d(filters)


class LastStep(nn.Module):
    """The last output of an LSTM that reads the rows of (n, channels, height, width) as steps."""

    def __init__(self, features, units):
        super().__init__()
        self.lstm = nn.LSTM(features, units, batch_first=True)

    def forward(self, x):
        return self.lstm(x.permute(0, 2, 3, 1).flatten(2))[0][:, -1]


def rows(features, units):
    return [
        LastStep(features, units),
        nn.Dropout(arguments.dropout),
        nn.Linear(units, 64),
        nn.ReLU(),
        nn.Dropout(arguments.dropout),
        nn.Linear(64, 10),
    ]


layers = {
    "cnn": lambda: [
        *convolutions(),
        nn.Flatten(),
        nn.Linear(1600, 128),
        nn.ReLU(),
        nn.Dropout(arguments.dropout),
        nn.Linear(128, 10),
    ],
    "lstm": lambda: rows(28, 128),
    "hybrid": lambda: [*convolutions(), *rows(5 * 64, 144)],
}
model = nn.Sequential(*layers[arguments.model]()).to(device, memory_format=torch.channels_last)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loss_of = nn.CrossEntropyLoss()
autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16")


def train(examples):
    """Train on the first `examples` images, in random order; return the mean loss."""
    total = torch.zeros((), device=device)
    model.train()
    for chosen in torch.randperm(examples, device=device).split(arguments.batch):
        optimizer.zero_grad()
        with autocast:
            loss = loss_of(model(x_train[chosen]), y_train[chosen])
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(chosen)
    return total.item() / examples


def accuracy(x, y):
    model.eval()
    batches = zip(x.split(arguments.batch), y.split(arguments.batch), strict=True)
    with torch.no_grad(), autocast:
        return sum((model(x).argmax(1) == y).sum() for x, y in batches).item() / len(y)


train(min(len(y_train), 10 * arguments.batch))
epochs = []
for _ in range(arguments.epochs):
    started = time.perf_counter()
    loss = train(len(y_train))
    val_accuracy = accuracy(x_val, y_val)
    seconds = time.perf_counter() - started
    epochs.append({"seconds": seconds, "loss": loss, "val_accuracy": val_accuracy})
parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
facts = {"epochs": epochs, "examples": len(y_train), "parameters": parameters}
print(json.dumps(facts | {"versions": {"torch": torch.__version__}}))

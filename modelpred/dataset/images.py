"""MNIST as features of a small network: the 128 inputs of the ReLU of its last hidden layer.

    features(x) = A flatten(pool(relu(conv64(relu(conv32(x / 255)))))) + b

with 3 x 3 convolutions, 2 x 2 pooling, and ten outputs on relu(features) for training. The network is
trained on the first 8,000 images of the file, and the table has the others, so the network has seen
neither training nor test rows. Its initial parameters and batches have their own generator. It runs
on one thread, because the sums of a convolution depend on the number of threads; the table is
reproducible on one machine. This takes half a minute.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from modelpred.dataset.tables import BUILTIN_FOLDER, Table

SIDE = 28
FEATURES = 128
CLASSES = 10
TRAINED_ON = 8000
IMAGES_AT_ONCE = 500


@dataclass(frozen=True)
class Training:
    """Settings of the training.

    Attributes:
        epochs: passes over the images.
        batch: images per step.
        learning_rate: highest learning rate of a one-cycle schedule of Adam.
        seed: of the initial parameters and the order of images.
    """

    epochs: int = 2
    batch: int = 64
    learning_rate: float = 2e-3
    seed: int = 0


class Network(nn.Module):
    """Two convolutions, one hidden layer, ten outputs."""

    def __init__(self, *, generator: torch.Generator) -> None:
        super().__init__()
        self.below = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
        )  # fmt: skip
        self.hidden = nn.Linear(64 * 12 * 12, FEATURES)
        self.above = nn.Linear(FEATURES, CLASSES)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_uniform_(parameter, nonlinearity="relu", generator=generator)
            else:
                nn.init.zeros_(parameter)

    def features(self, images: Float32[Tensor, "images 1 28 28"]) -> Float32[Tensor, "images 128"]:
        """The hidden layer before its ReLU."""
        return self.hidden(self.below(images))

    def forward(self, images: Float32[Tensor, "images 1 28 28"]) -> Float32[Tensor, "images 10"]:
        """Scores of the ten digits."""
        return self.above(torch.relu(self.features(images)))


def mnist_table(
    *, path: Path = BUILTIN_FOLDER / "mnist.parquet", trained_on: int = TRAINED_ON
) -> Table:
    """The features of the images that the network was not trained on, with the digit as label.

    Args:
        path: a Parquet file with columns image and label.
        trained_on: number of first images that the network is trained on.
    """
    rows = pl.read_parquet(path, glob=False)
    images = torch.from_numpy(rows["image"].to_numpy(writable=True)).reshape(-1, 1, SIDE, SIDE)
    images = images.to(torch.float32) / 255
    digits = torch.from_numpy(rows["label"].to_numpy(writable=True).astype(np.int64))
    with _one_thread():
        network = trained_network(images[:trained_on], digits[:trained_on], Training())
        features, right = answers(network, images[trained_on:], digits[trained_on:])
    columns = {f"unit_{unit + 1:03}": features[:, unit] for unit in range(FEATURES)}
    return Table(
        name="mnist",
        rows=pl.DataFrame(
            {
                "row_id": [str(row) for row in range(trained_on, len(digits))],
                **columns,
                "digit": digits[trained_on:].numpy(),
            }
        ),
        label="digit",
        classes=tuple(map(str, range(CLASSES))),
        points=500,
        test=1000,
        attribution=(
            f"MNIST, {FEATURES} features of a small convolutional network trained on {trained_on:,} "
            f"other images, which is right on {right:.1%} of these. LeCun, Cortes, Burges, "
            "https://doi.org/10.1109/5.726791, CC BY-SA 3.0"
        ),
    )


def trained_network(
    images: Float32[Tensor, "images 1 28 28"], digits: Int64[Tensor, " images"], config: Training
) -> Network:
    """The network after training on these images."""
    generator = torch.Generator().manual_seed(config.seed)
    network = Network(generator=generator)
    optimiser = torch.optim.Adam(network.parameters())
    steps = config.epochs * -(-len(images) // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps
    )
    for _ in range(config.epochs):
        for batch in torch.randperm(len(images), generator=generator).split(config.batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), digits[batch]).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def answers(
    network: Network, images: Float32[Tensor, "images 1 28 28"], digits: Int64[Tensor, " images"]
) -> tuple[np.ndarray, float]:
    """The features [images, 128] in float64, and the accuracy of the network."""
    features = torch.cat([network.features(block) for block in images.split(IMAGES_AT_ONCE)])
    right = network.above(torch.relu(features)).argmax(1) == digits
    return features.to(torch.float64).numpy(), float(right.double().mean())


@contextmanager
def _one_thread() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

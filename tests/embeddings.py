"""A made-up table that looks like frozen embeddings of many classes."""

import numpy as np


def embeddings(
    rows: int, features: int, classes: int, *, seed: int = 0, flipped: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Features [rows, features], float64, and labels [rows] of class means, low-rank noise and label noise.

    The noise has an eighth as many directions as there are features, with a decaying spectrum, beside a
    little in every direction. A share of the labels is drawn anew.
    """
    generator = np.random.default_rng(seed)
    rank = max(1, features // 8)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, rows - classes)])
    means = 0.4 * generator.normal(size=(classes, features))
    spectrum = 10 / np.sqrt(1 + np.arange(rank))
    directions = generator.normal(size=(rank, features)) * spectrum[:, None]
    noise = generator.normal(size=(rows, rank)) @ directions / np.sqrt(rank)
    noise += 2 * generator.normal(size=(rows, features))
    found = means[labels] + noise
    anew = generator.random(rows) < flipped
    anew[:classes] = False
    labels[anew] = generator.integers(0, classes, int(anew.sum()))
    return found, labels.astype(np.int64)

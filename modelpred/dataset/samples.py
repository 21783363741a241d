"""A part of the training rows, for a trial."""

from dataclasses import replace

import numpy as np
import torch

from modelpred.dataset.preparation import Dataset
from modelpred.dataset.seeds import seeded_generator


def some_rows(dataset: Dataset, size: int) -> Dataset:
    """The data set with so many of its training rows, one of each class among them where they suffice."""
    order = seeded_generator(0, "trial").permutation(len(dataset.labels))
    if dataset.classes:
        first = np.unique(dataset.labels.numpy()[order], return_index=True)[1]
        order = np.concatenate([order[first], np.delete(order, first)])
    chosen = torch.from_numpy(np.sort(order[:size]))
    return replace(
        dataset,
        features=dataset.features[chosen],
        labels=dataset.labels[chosen],
        row_ids=tuple(dataset.row_ids[at] for at in chosen.tolist()),
        original_labels=None,
    )

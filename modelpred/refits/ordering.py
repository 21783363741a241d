"""An order of a bank's rows that depends on their content alone.

Banks list their subsets by design, by block or in the order of drawing. Whatever takes some of the rows, or one
after another, takes them in this order instead: it is as good as random, and the same for every order of the bank.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

BLOCK = 2048  # rows that are converted at once


def content_order(weights: Tensor, parameters: Tensor) -> Tensor:
    """Positions [subsets] of the rows, sorted by a hash of each row's weights and parameters.

    Whatever type the weights have, the same weights give the same order.
    """
    keys = np.empty(len(weights), dtype=np.uint64)
    for first in range(0, len(weights), BLOCK):
        rows = weights[first : first + BLOCK].detach().cpu().to(torch.float32) + 0.0  # no -0.0
        targets = parameters[first : first + BLOCK].detach().cpu().to(torch.float64) + 0.0
        for place, (row, target) in enumerate(zip(rows.numpy(), targets.numpy(), strict=True)):
            digest = hashlib.blake2b(row.tobytes() + target.tobytes(), digest_size=8).digest()
            keys[first + place] = int.from_bytes(digest, "little")
    return torch.from_numpy(np.argsort(keys, kind="stable")).to(weights.device)

"""Generators that depend on what is drawn, never on what was drawn before."""

import hashlib
import json

import numpy as np


def seeded_generator(seed: int, *scope: str | int) -> np.random.Generator:
    """A generator of its own for each (seed, scope), such as (0, "subsets", "fit", "uniform", 3)."""
    digest = hashlib.sha256(json.dumps([seed, *scope]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))

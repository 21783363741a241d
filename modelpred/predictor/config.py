"""How a predictor is built and fitted: its settings, and what each network was designed with."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelpred.numbers import LARGEST_SEED

MOST_EPOCHS = 10**6  # so many take days on the smallest pool


class PredictorConfig(BaseModel):
    """Settings of the set function and its fit; section `predictor` of params.yaml.

    `auto` is `anchored` for small pools. From 100,000 rows x parameters on it is `newton`
    (newton_network.py) if its error on held-out subsets is at most 1%, or if the family has more than 400
    parameters, so that fitting the steps of `anchored` would take minutes.

    `None` means what the network was designed with: for `anchored` 20 epochs of batches of 128 at
    2e-3, for `paper` 15 epochs of batches of 32 at 1e-4; and as many steps as the pool needs
    (planned_steps). `start` names the revision whose predictor the fit starts from, which needs a quarter of the epochs. A fit that is
    watched on validation subsets ends early when their error has not fallen for `patience` epochs of
    its second half; `None` goes on to the end, and so does `paper`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["auto", "newton", "anchored", "paper"] = "auto"
    start: str | None = None
    epochs: int | None = Field(default=None, ge=1, le=MOST_EPOCHS)
    patience: int | None = Field(default=6, ge=1)
    batch: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    optimality: float | None = Field(default=None, ge=0)
    utility: float | None = Field(default=None, ge=0)
    width: int = Field(default=128, ge=1)
    steps: int | None = Field(default=None, ge=0)
    step_width: int = Field(default=32, ge=1)
    seed: int = Field(default=0, ge=0, lt=LARGEST_SEED)

    def schedule(self) -> "Schedule":
        """The settings with every `None` resolved."""
        usual = SCHEDULES["paper" if self.network == "paper" else "anchored"]
        if self.start is not None:
            usual = {**usual, "epochs": math.ceil(usual["epochs"] / 4)}
        given = {
            name: getattr(self, name)
            for name in ("epochs", "batch", "learning_rate", "optimality", "utility")
            if getattr(self, name) is not None
        }
        return Schedule(**{**usual, **given})


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to fit, and what beside the parameters to match."""

    epochs: int
    batch: int
    learning_rate: float
    optimality: float
    utility: float


SCHEDULES: dict[str, dict[str, Any]] = {
    "anchored": {
        "epochs": 20, "batch": 128, "learning_rate": 2e-3, "optimality": 0.0, "utility": 0.0,
    },
    "paper": {
        "epochs": 15, "batch": 32, "learning_rate": 1e-4, "optimality": 0.0, "utility": 0.0,
    },
}  # fmt: skip

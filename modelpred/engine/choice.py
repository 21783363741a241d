"""Which engine gives some models, and what the other one would cost.

    exact      models x r                    r, q: seconds of a model
    predicted  preparation + models x q + checked x r

Prediction is chosen if it saves more than `WORTH` seconds. Once the predictor is fitted, its preparation
costs nothing more.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from modelpred.errors import InvalidInput
from modelpred.wording import Printed

EngineName = Literal["auto", "exact", "predicted"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
WORTH = 0.1
"""Seconds that prediction must save: nobody waits for less, and exact models have no error."""
PROMISING = 0.35
"""Largest time of a prediction, relative to retraining, at which corrected predictions may pay: the
correction takes time and adds to the variance."""
LESS_CERTAIN = "corrected predictions would be less certain in the same time"
ACCURACY = 0.05
"""Largest mean relative error of predicted parameters that `auto` accepts, by default."""


def require_engine(engine: str) -> EngineName:
    """Return the name of an engine.

    Raises:
        InvalidInput: it is none.
    """
    if engine not in ENGINES:
        raise InvalidInput(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    return engine


def accurate(error: float, accuracy: float) -> bool:
    """Return whether predictions of this mean relative error may be used; no if it is unknown (nan)."""
    return error <= accuracy


@dataclass(frozen=True)
class Costs:
    """Seconds on this machine for this pool.

    Attributes:
        exact: of retraining one of many models.
        predicted: of predicting one of many models.
        preparation: before the first prediction; 0 once the predictor is fitted.
    """

    exact: float
    predicted: float
    preparation: float

    @property
    def promising(self) -> bool:
        """Whether predictions are cheap enough for some of them to be retrained, too."""
        return self.predicted <= PROMISING * self.exact

    def cheaper(self, models: int, *, checked: int = 0) -> Literal["exact", "predicted"]:
        """Return the engine for so many models: predicted if it saves `WORTH` seconds, else exact."""
        predicted = self.of("predicted", models, checked=checked)
        return "predicted" if self.of("exact", models) - predicted > WORTH else "exact"

    def of(self, engine: Literal["exact", "predicted"], models: int, *, checked: int = 0) -> float:
        """Return the seconds of so many models, preparation included.

        Args:
            engine: exact or predicted.
            models: number of models.
            checked: number of predictions that are retrained, too, to correct for their error.
        """
        if engine == "exact":
            return models * self.exact
        return self.preparation + models * self.predicted + checked * self.exact


@dataclass(frozen=True, repr=False)
class EngineChoice(Printed):
    """The engine that gave some models; `print` shows it with the costs.

    Attributes:
        engine: exact (retrained) or predicted.
        models: number of models that were needed, about.
        refine: Newton steps of each prediction.
        costs: expected seconds of both engines, when the choice was made; None if only one can be
            used.
        checked: number of predictions that are retrained, too, to correct for their error.
        retrained_below: subsets of less total weight are retrained, whatever the engine: the predictor
            was fitted to larger ones. 0: none.
        why: what decided beside the costs; may be empty.
    """

    engine: Literal["exact", "predicted"]
    models: int
    refine: float | int = 0
    costs: Costs | None = None
    checked: int = 0
    retrained_below: float = 0.0
    why: str = ""

    @property
    def exact(self) -> bool:
        """Whether the models were retrained."""
        return self.engine == "exact"

    @property
    def seconds(self) -> float | None:
        """Expected seconds of the engine used; None if unknown."""
        return self._seconds(self.engine)

    @property
    def other_seconds(self) -> float | None:
        """Expected seconds of the other engine; None if unknown."""
        return self._seconds("predicted" if self.exact else "exact")

    def _seconds(self, engine: Literal["exact", "predicted"]) -> float | None:
        if self.costs is None:
            return None
        return self.costs.of(engine, self.models, checked=self.checked)

    def __str__(self) -> str:
        """The engine and the expected seconds of both."""
        done, other = ("retrained", "prediction") if self.exact else ("predicted", "retraining")
        text = f"{self.models:,} model{'s'[: self.models != 1]} {done}"
        if self.costs is None or self.seconds is None or self.other_seconds is None:
            return text
        text += f" (about {duration(self.seconds)}); {other} would take about "
        text += duration(self.other_seconds)
        if self.exact and self.costs.preparation:
            text += f", {duration(self.costs.preparation)} of it to prepare"
        return f"{text}; {self.why}" if self.why else text


def duration(seconds: float) -> str:
    """Return seconds in a unit that people read: 30 µs, 0.41 ms, 12 s, 3 min."""
    for below, factor, unit in ((1e-4, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s")):
        if seconds < below:
            number = seconds * factor
            return f"{number:.{0 if number >= 10 else 1 if number >= 1 else 2}f} {unit}"
    return f"{seconds / 60:,.0f} min"

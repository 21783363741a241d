"""Converts the arguments of ModelPred to the configurations of the pipeline's stages."""

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from modelpred.api.labels import Labels
from modelpred.dataset.config import ScalingName
from modelpred.engine import ACCURACY
from modelpred.errors import InvalidInput
from modelpred.estimators import Estimator, TorchHead
from modelpred.numbers import (
    MOST_DRAWS,
    Number,
    checked_section,
    plain,
    real_number,
    seed_number,
    whole_number,
)
from modelpred.predictor import PredictorConfig
from modelpred.subsets import Counts, SubsetsConfig
from modelpred.targets import TargetsConfig, TorchTarget
from modelpred.targets.families import FAMILIES, fitting_families

AUTO = "auto"
AUTO_TARGETS = ("logistic", "softmax", "ridge")  # the families that it chooses from
FEWEST_SUBSETS = 20
USUAL_SUBSETS = (
    8000  # to fit a predictor of at most 2,000 rows; fewer of more, see SubsetsConfig.scale
)
SCALINGS: dict[str, ScalingName] = {name: name for name in get_args(ScalingName)}


class Asked(BaseModel):
    """The arguments that reproduce a ModelPred."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    target: str
    settings: dict[str, int | float | str]
    scaling: ScalingName
    seed: int
    subsets: SubsetsConfig
    predictor: PredictorConfig
    progress: bool
    automatic: bool = False
    accuracy: float = ACCURACY


@dataclass(frozen=True)
class FitSettings:
    """The arguments of a ModelPred, checked, as its next fit uses them.

    Attributes:
        target: the name of a family, or an estimator.
        settings: of the family, with the tolerance; checked against the family of an
            estimator at the fit.
        scaling: of a family by name.
        seed: of subsets and trainings.
        subsets: to train.
        automatic: whether the fit decides how many subsets it trains.
        predictor: settings of the network.
        accuracy: largest mean relative error of predicted parameters that `auto` accepts.
        progress: whether a terminal shows how far the fit is.
    """

    target: str | Estimator
    settings: dict[str, Any]
    scaling: ScalingName
    seed: int
    subsets: SubsetsConfig
    automatic: bool
    predictor: PredictorConfig
    accuracy: float
    progress: bool

    @property
    def chooses_c(self) -> bool:
        """Whether the fit chooses C."""
        return chosen_by_fit("C", self.settings.get("C"))

    def asked(self) -> Asked:
        """The same with an estimator as the name of its class, to be written to a file."""
        name = self.target if isinstance(self.target, str) else type(self.target).__name__
        arguments: dict[str, Any] = {**vars(self), "target": name}
        return Asked(**arguments)


def fit_settings(
    target: str | Estimator,
    *,
    subsets: Number | str | SubsetsConfig,
    scaling: str | None,
    tolerance: Number,
    seed: Number,
    predictor: PredictorConfig | None,
    accuracy: Number,
    progress: bool,
    **settings: Number | str,
) -> FitSettings:
    """Return the checked arguments of a ModelPred.

    Raises:
        InvalidInput: they cannot be used.
    """
    require_target(target, scaling=scaling, settings=settings)
    family = plain_settings({"tolerance": tolerance, **settings})
    checked_seed = seed_number(seed)
    fit = FitSettings(
        target=target,
        settings=family,
        scaling=SCALINGS[scaling or "standardise"],
        seed=checked_seed,
        subsets=subsets_config(subsets, checked_seed),
        automatic=automatic_subsets(subsets),
        predictor=predictor or PredictorConfig(seed=checked_seed),
        accuracy=float(real_number(accuracy, "accuracy", least=0)),
        progress=progress,
    )
    for name in families_of(target):
        targets_config(name, family, checked_seed)
    return fit


def require_target(
    target: str | Estimator, *, scaling: str | None, settings: dict[str, Number | str]
) -> None:
    """Check what is to be fitted.

    Raises:
        InvalidInput: an unknown name, a class in place of an estimator, or settings that belong to
            the estimator.
    """
    if scaling is not None and scaling not in SCALINGS:
        raise InvalidInput(f"unknown scaling {scaling!r}; known: {', '.join(SCALINGS)}")
    if isinstance(target, str):
        if target != AUTO and target not in FAMILIES:
            raise InvalidInput(
                f"unknown target model {target!r}; known: {AUTO}, {', '.join(FAMILIES)}, or an "
                "estimator of scikit-learn"
            )
        return
    name = type(target).__name__
    known = isinstance(target, (TorchHead, TorchTarget))
    usable = hasattr(target, "get_params") or hasattr(target, "predict")
    if not known and (isinstance(target, type) or not hasattr(target, "fit") or not usable):
        raise InvalidInput(
            f"target is {target!r}; expected the name of a family or an estimator, such as "
            "LogisticRegression()"
        )
    if settings:
        first = next(iter(settings))
        raise InvalidInput(f"{first} is a setting of the estimator; pass it to {name}({first}=...)")
    if scaling is not None:
        raise InvalidInput(
            f"{name} takes the columns as they are; put a scaler before it in a Pipeline in place of "
            "scaling"
        )


def families_of(target: str | Estimator) -> tuple[str, ...]:
    """The families that a name can be; none for an estimator, whose family is found at the fit."""
    if not isinstance(target, str):
        return ()
    return AUTO_TARGETS if target == AUTO else (target,)


def family_of(target: str, labels: Labels) -> str:
    """The family that `auto` chooses."""
    return target if target != AUTO else fitting_families(len(labels.classes))[0]


def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with numbers of any library as Python's own."""
    return {
        name: value if (number := plain(value)) is None else number
        for name, value in settings.items()
    }


def targets_config(family: str, settings: dict[str, Number | str], seed: int) -> TargetsConfig:
    """The settings as the pipeline's stages take them, with 1 for a C that the fit chooses.

    Raises:
        InvalidInput: a setting that the family does not have, or a value out of range.
    """
    settings = {
        name: 1.0 if chosen_by_fit(name, value) else value for name, value in settings.items()
    }
    known = ("tolerance", *FAMILIES[family].setting_names())
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InvalidInput(
            f"{family} has no setting {unknown[0]!r}; known: "
            f"{', '.join(name for name in known if name != 'seed')}"
        )
    return checked_section(TargetsConfig, {"model": family, "seed": seed, **settings})


def chosen_by_fit(name: str, value: Number | str | None) -> bool:
    """Whether a setting of a family is chosen by validation when it is fitted: C of `auto`."""
    return name == "C" and isinstance(value, str) and value == AUTO


def subsets_argument(asked: Asked) -> int | str | SubsetsConfig:
    """The argument that gives these settings: auto, a number, or a configuration."""
    config, seed = asked.subsets, asked.seed
    if asked.automatic:
        return AUTO if config == subsets_config(AUTO, seed) else 0
    count = sum(config.fit.values())
    usual = count >= FEWEST_SUBSETS and subsets_config(count, seed) == config
    return count if usual else config


def automatic_subsets(subsets: Number | str | SubsetsConfig) -> bool:
    """Whether the fit decides how many subsets it trains: `auto`, or 0, which allows none."""
    return subsets == AUTO if isinstance(subsets, str) else plain(subsets) == 0


def subsets_config(subsets: Number | str | SubsetsConfig, seed: int) -> SubsetsConfig:
    """How many subsets of which design and role; held-out ones in the pipeline's proportions.

    Of no subsets for the fit there are as many held-out ones as of `auto`.

    Raises:
        InvalidInput: another text, or a number that is too small or too large.
    """
    if isinstance(subsets, SubsetsConfig):
        return subsets
    if isinstance(subsets, str):
        if subsets != AUTO:
            raise InvalidInput(f"subsets is {subsets!r}; expected a number or {AUTO}")
        return subsets_config(USUAL_SUBSETS, seed).model_copy(update={"scale": "auto"})
    if plain(subsets) == 0:
        usual = subsets_config(AUTO, seed)
        return usual.model_copy(update={"fit": {"uniform": 0, "bootstrap": 0}})
    subsets = whole_number(subsets, "subsets", least=FEWEST_SUBSETS, most=MOST_DRAWS)
    usual = SubsetsConfig()
    share = min(1.0, subsets / sum(usual.fit.values()))

    def held_out(counts: Counts) -> Counts:
        return {design: max(5, round(share * count)) for design, count in counts.items()}

    return SubsetsConfig(
        fit={"uniform": subsets - subsets // 5, "bootstrap": subsets // 5},
        validation=held_out(usual.validation),
        test=held_out(usual.test),
        scale=1.0,
        seed=seed,
    )

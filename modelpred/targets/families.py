"""The table of target families, and their configuration."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelpred.dataset.tables import InvalidInput
from modelpred.targets.linear_families import Logistic, Ridge, Softmax, Svm
from modelpred.targets.mlp import Mlp
from modelpred.targets.model import TargetModel

FAMILIES: dict[str, type[TargetModel]] = {
    family.name: family for family in (Logistic, Softmax, Svm, Ridge, Mlp)
}


def target_model(name: str, **settings: Any) -> TargetModel:  # noqa: ANN401 - families differ in them
    """The model family of that name with these settings.

    Raises:
        InvalidInput: an unknown name or setting, or a value out of range.
    """
    if name not in FAMILIES:
        raise InvalidInput(f"unknown target model {name!r}; known: {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    known = family.setting_names()
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise InvalidInput(f"{name} has no setting {unknown[0]!r}; known: {', '.join(known)}")
    return family(**settings)


class TargetsConfig(BaseModel):
    """params.yaml's `targets`: which models are trained on the subsets.

    `C` is used by logistic, softmax, svm and ridge; `hidden` and what follows it by mlp.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["logistic", "softmax", "svm", "ridge", "mlp"] = "logistic"
    tolerance: float = Field(default=1e-6, gt=0)
    C: float = Field(default=1.0, gt=0)
    hidden: int = Field(default=16, ge=1)
    weight_decay: float = Field(default=1e-3, ge=0)
    learning_rate: float = Field(default=0.5, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    steps: int = Field(default=150, ge=1)
    seed: int = Field(default=0, ge=0)

    def build(self) -> TargetModel:
        """The target model with those settings that its family has."""
        known = FAMILIES[self.model].setting_names()
        settings = self.model_dump(include=set(known))
        return target_model(self.model, **settings)

"""The table of target families, and their configuration."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from modelpred.errors import InvalidInput
from modelpred.targets.linear_families import Logistic, Ridge, RidgeClassifier, Softmax
from modelpred.targets.mlp import Mlp
from modelpred.targets.model import TargetModel
from modelpred.targets.svm import Svm

FAMILIES: dict[str, type[TargetModel]] = {
    family.name: family for family in (Logistic, Softmax, Svm, Ridge, RidgeClassifier, Mlp)
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


class _Training(BaseModel):
    """What `targets` says whatever the family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "auto"
    tolerance: float = Field(default=1e-6, gt=0)

    def build(self, *, classes: int) -> TargetModel:
        """The target model for labels of so many classes (0: numbers), with its own settings.

        Raises:
            InvalidInput: the family has no place for such labels; the message names those that do.
        """
        name = fitting_families(classes)[0] if self.model == "auto" else self.model
        if name not in fitting_families(classes):
            labels = f"has {classes} classes" if classes else "is a number"
            raise InvalidInput(
                f"the model {name} does not fit the label, which {labels}; expected one of auto, "
                f"{', '.join(fitting_families(classes))}"
            )
        known = FAMILIES[name].setting_names()
        return target_model(name, **self.model_dump(include=set(known)))


def targets_section(families: Mapping[str, type[TargetModel]]) -> type[_Training]:
    """The configuration of a table of families: one that is added brings its settings along.

    A setting's bounds are those that stand at the family's own field; families share settings of
    one name.
    """
    settings: dict[str, Any] = {
        field.name: (hints[field.name], field.default)
        for family in families.values()
        for hints in [get_type_hints(family, include_extras=True)]
        for field in dataclasses.fields(family)
    }
    settings["model"] = (Literal[("auto", *families)], "auto")
    return create_model("targets", __base__=_Training, **settings)


class TargetsConfig(targets_section(FAMILIES)):
    """params.yaml's `targets`: which models are trained on the subsets.

    `auto` is logistic for two classes, softmax for more and ridge for numbers. The settings are
    those of all families (`C` of the linear ones, `hidden` and others of mlp); a family takes its
    own.
    """


def fitting_families(classes: int) -> tuple[str, ...]:
    """The families for labels of so many classes (0: numbers); the first is what `auto` means."""
    if classes == 0:
        return tuple(name for name, family in FAMILIES.items() if family.regression)
    first = ("logistic", "softmax") if classes == 2 else ("softmax",)
    others = (name for name, family in FAMILIES.items() if not family.regression)
    return tuple(dict.fromkeys((*first, *(name for name in others if name != "logistic"))))

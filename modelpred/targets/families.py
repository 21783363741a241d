"""The table of target families, and their configuration."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from modelpred.errors import InvalidInput
from modelpred.targets.linear_families import Logistic, Ridge, RidgeClassifier, Softmax
from modelpred.targets.mlp import Mlp
from modelpred.targets.model import TargetModel
from modelpred.targets.own_code import (
    IMPORT_PATH,
    defining_files,
    imported_target,
    is_import_path,
)
from modelpred.targets.svm import Svm

OWN_MODEL = "the import path of a target of your own, such as models.nets:target"
OwnModel = Annotated[str, Field(pattern=IMPORT_PATH, json_schema_extra={"words": OWN_MODEL})]

FAMILIES: dict[str, type[TargetModel]] = {
    family.name: family for family in (Logistic, Softmax, Svm, Ridge, RidgeClassifier, Mlp)
}


def target_model(name: str, **settings: Any) -> TargetModel:  # noqa: ANN401 - families differ in them
    """The model family of that name with these settings.

    Raises:
        InvalidInput: an unknown name or setting, a value out of range, or code of the user's own, which
            only `rebuilt_target` imports.
    """
    if is_import_path(name):
        raise InvalidInput(
            f"its model {name} is code that would have to be imported, which only the stages of the "
            "project do whose params.yaml names it"
        )
    if name not in FAMILIES:
        raise InvalidInput(f"unknown target model {name!r}; known: {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    known = family.setting_names()
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise InvalidInput(f"{name} has no setting {unknown[0]!r}; known: {', '.join(known)}")
    return family(**settings)


def rebuilt_target(name: str, **settings: Any) -> TargetModel:  # noqa: ANN401 - families differ in them
    """The family of that name, or the target at that import path, whose code is run.

    Raises:
        InvalidInput: as `target_model` and `imported_target`.
    """
    if is_import_path(name):
        return imported_target(name, settings)
    return target_model(name, **settings)


class _Training(BaseModel):
    """What `targets` says whatever the family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "auto"
    settings: dict[str, float | int | str] = Field(default_factory=dict)
    code: str = "models"
    tolerance: float = Field(default=1e-6, gt=0)

    def build(self, *, classes: int) -> TargetModel:
        """The target model for labels of so many classes (0: numbers), with its own settings.

        Raises:
            InvalidInput: the family has no place for such labels; the message names those that do.
                A target of the user's own is not found, or its file is not that of `code`.
        """
        if is_import_path(self.model):
            self._check_code()
            return imported_target(self.model, self.settings)
        if self.settings:
            raise InvalidInput(
                f"targets.settings are those of a target of your own, but targets.model is {self.model}; "
                "leave them out"
            )
        name = fitting_families(classes)[0] if self.model == "auto" else self.model
        if name not in fitting_families(classes):
            labels = f"has {classes} classes" if classes else "is a number"
            raise InvalidInput(
                f"the model {name} does not fit the label, which {labels}; expected one of auto, "
                f"{', '.join(fitting_families(classes))}"
            )
        known = FAMILIES[name].setting_names()
        return target_model(name, **self.model_dump(include=set(known)))

    def _check_code(self) -> None:
        """Refuse a target whose changes DVC would not see."""
        place = Path(self.code).absolute()
        for file in defining_files(self.model):
            if place != file and place not in file.parents:
                raise InvalidInput(
                    f"targets.code is {self.code}, but {self.model} runs {file}; name the file or folder "
                    "that holds all its code, so that changes of it run the stages again"
                )


def targets_section(families: Mapping[str, type[TargetModel]]) -> type[_Training]:
    """The configuration of a table of families: one that is added brings its settings along.

    A setting's bounds are those of the family's field; families share settings of
    one name.
    """
    settings: dict[str, Any] = {
        field.name: (hints[field.name], field.default)
        for family in families.values()
        for hints in [get_type_hints(family, include_extras=True)]
        for field in dataclasses.fields(family)
    }
    known: Any = Literal[("auto", *families)]
    settings["model"] = (known | OwnModel, "auto")
    return create_model("targets", __base__=_Training, **settings)


class TargetsConfig(targets_section(FAMILIES)):
    """params.yaml's `targets`: which models are trained on the subsets.

    `auto` is logistic for two classes, softmax for more and ridge for numbers. The settings are
    those of all families (`C` of the linear ones, `hidden` and others of mlp); a family takes its
    own. A target of the user's own is named by import path; `settings` are its own, and `code` is
    the file or folder that holds it, on which the stages depend.
    """


def fitting_families(classes: int) -> tuple[str, ...]:
    """The families for labels of so many classes (0: numbers); the first is what `auto` means."""
    if classes == 0:
        return tuple(name for name, family in FAMILIES.items() if family.regression)
    first = ("logistic", "softmax") if classes == 2 else ("softmax",)
    others = (name for name, family in FAMILIES.items() if not family.regression)
    return tuple(dict.fromkeys((*first, *(name for name in others if name != "logistic"))))

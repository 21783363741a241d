"""What would the model be, had it been trained on other data?

    from modelpred import ModelPred

    mp = ModelPred(target="logistic", C=1.0).fit(X, y)
    mp.predict_parameters(weights)          # [subsets, parameters], in microseconds each
    mp.certificate(weights)                 # how far at most from exact training
    print(mp.without([3, 14]).compare())    # what those two rows did

Names are loaded when they are used: importing the package alone is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelpred.api import ModelPred
    from modelpred.errors import InvalidInput

__all__ = ["InvalidInput", "ModelPred"]

_HOMES = {"InvalidInput": "modelpred.errors", "ModelPred": "modelpred.api"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

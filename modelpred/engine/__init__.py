"""The engine: models of subsets by exact retraining or by prediction, whichever costs less.

    engine = Engine(problem, plan)
    choice = engine.choose("auto", models=30_000)      # which, and what the other would cost
    refit = engine.refit(choice, refine=1.0)           # weights -> parameters

Prediction needs preparation: models trained on subsets, and a predictor fitted to them. It is made at
the first choice of prediction and kept.
"""

from modelpred.engine.choice import (
    ACCURACY,
    ENGINES,
    LESS_CERTAIN,
    EngineChoice,
    EngineName,
    accurate,
    duration,
    require_engine,
)
from modelpred.engine.engine import Engine
from modelpred.engine.mixed import Mixed
from modelpred.engine.preparation import Plan, Prepared, Problem, Targets, problem_of

__all__ = [
    "ACCURACY",
    "ENGINES",
    "LESS_CERTAIN",
    "Engine",
    "EngineChoice",
    "EngineName",
    "Mixed",
    "Plan",
    "Prepared",
    "Problem",
    "Targets",
    "accurate",
    "duration",
    "problem_of",
    "require_engine",
]

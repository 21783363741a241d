"""The input of a study from a fit: the training rows, the rows to score on, and one refit."""

import logging
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from modelpred.api.files import Fitted
from modelpred.engine import EngineChoice
from modelpred.refits import Progress, Retraining, silent
from modelpred.studies.context import StudyContext
from modelpred.targets import Points

log = logging.getLogger(__name__)


@contextmanager
def context_of(
    fitted: Fitted,
    test_points: Points,
    *,
    choice: EngineChoice,
    scored: Sequence[Points],
    progress: Progress = silent,
) -> Generator[StudyContext]:
    """The input of a study, whose subject is the chosen engine's refit.

    Afterwards a warning says how many models failed, if any did.

    Args:
        fitted: the fit.
        test_points: the rows of the scores.
        choice: the engine.
        scored: all rows that models score.
        progress: called with (done, total, what).
    """
    problem = fitted.problem
    model = problem.model.for_rows(problem.points, *scored)
    truth = Retraining(model, problem.points, tolerance=problem.tolerance)
    subject = truth
    if not choice.exact:
        subject = fitted.engine.refit(choice, progress=progress)
    context = StudyContext(
        truth,
        test_points,
        {subject.name: subject},
        problem.row_ids,
        progress=progress,
        feature_names=fitted.dataset.feature_names,
        class_names=fitted.dataset.classes,
    )
    yield context
    if str(context.failures):
        why = "" if model.has_parameters else f" ({model.advice(math.nan)})"
        log.warning("%s%s", context.failures, why)

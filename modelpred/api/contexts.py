"""The input of a study from a fit: the training rows, the rows to score on, and one refit."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

from modelpred.api.files import Fitted
from modelpred.engine import EngineChoice
from modelpred.numbers import Number
from modelpred.refits import Progress, silent
from modelpred.studies.utility import StudyContext
from modelpred.targets import Points

log = logging.getLogger(__name__)


@contextmanager
def context_of(
    fitted: Fitted,
    test_points: Points,
    *,
    choice: EngineChoice,
    refine: Number,
    progress: Progress = silent,
) -> Generator[StudyContext]:
    """The input of a study, whose subject is the chosen engine's refit.

    Afterwards a warning says how many models failed, if any did.
    """
    problem = fitted.problem
    subject = fitted.engine.refit(choice, refine=refine, progress=progress)
    context = StudyContext(
        problem.model,
        problem.points,
        test_points,
        {subject.name: subject},
        problem.truth,
        problem.row_ids,
        progress=progress,
        feature_names=fitted.dataset.feature_names,
        class_names=fitted.dataset.classes,
    )
    yield context
    if str(context.failures):
        log.warning("%s", context.failures)

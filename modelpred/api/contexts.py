"""The input of a study from a fit: the training rows, the rows to score on, and one refit."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

from modelpred.api.files import Fitted
from modelpred.numbers import Number, steps_number
from modelpred.predictor import Refined
from modelpred.refits import Progress, Refit, Retraining, silent
from modelpred.studies.utility import StudyContext
from modelpred.targets import Points

log = logging.getLogger(__name__)


@contextmanager
def context_of(
    fitted: Fitted,
    test_points: Points,
    *,
    exact: bool,
    refine: Number,
    progress: Progress = silent,
) -> Generator[StudyContext]:
    """The input of a study, with the predictor or retraining as its subject.

    Afterwards a warning says how many models failed, if any did.
    """
    refine = steps_number(refine)
    predictor = fitted.predictor
    truth = Retraining(predictor.model, predictor.points, tolerance=fitted.tolerance)
    predicted: Refit = Refined(predictor, refine) if refine else predictor
    subject = truth if exact else predicted
    context = StudyContext(
        predictor.model,
        predictor.points,
        test_points,
        {subject.name: subject},
        truth,
        predictor.row_ids,
        progress=progress,
        feature_names=fitted.dataset.feature_names,
        class_names=fitted.dataset.classes,
    )
    yield context
    if str(context.failures):
        log.warning("%s", context.failures)

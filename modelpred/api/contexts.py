"""A fit as a study takes it: the pool, the rows to score on, and one refit that is asked."""

from modelpred.api.files import Fitted
from modelpred.numbers import Number, steps_number
from modelpred.predictor import Refined
from modelpred.refits import Progress, Refit, Retraining, silent
from modelpred.studies.utility import StudyContext
from modelpred.targets import Points


def context_of(
    fitted: Fitted,
    test_points: Points,
    *,
    exact: bool,
    refine: Number,
    progress: Progress = silent,
) -> StudyContext:
    """Return the fit as a study takes it, with the predictor or retraining as its subject."""
    refine = steps_number(refine)
    predictor = fitted.predictor
    truth = Retraining(predictor.model, predictor.points, tolerance=fitted.tolerance)
    predicted: Refit = Refined(predictor, refine) if refine else predictor
    subject = truth if exact else predicted
    return StudyContext(
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

"""Studies whose subject is the predictor with some Newton steps from each of its predictions."""

from dataclasses import replace

from modelpred.predictor import Predictor, Refined
from modelpred.studies.utility import StudyContext


def with_refined(context: StudyContext, *, refine: float) -> tuple[str, StudyContext]:
    """Return the name of the refit that a study is about, and the context that has it.

    That is the refined predictor, put before the other refits; the context's own subject where
    `refine` is 0 or the subject is no predictor.
    """
    subject = context.refits[context.subject]
    if not (refine and isinstance(subject, Predictor)):
        return context.subject, context
    name = f"{context.subject}_refined"
    return name, replace(context, refits={name: Refined(subject, refine), **context.refits})

"""Adds the predictor refined by Newton steps to the refits of a study."""

from dataclasses import replace

from modelpred.predictor import Predictor, Refined
from modelpred.studies.utility import StudyContext


def with_refined(context: StudyContext, *, refine: float) -> tuple[str, StudyContext]:
    """Return the name of the refit to evaluate, and the context with it.

    This is the refined predictor, as the first refit. If `refine` is 0 or the context's subject is
    not a predictor, it is the context's own subject.
    """
    subject = context.refits[context.subject]
    if not (refine and isinstance(subject, Predictor)):
        return context.subject, context
    name = f"{context.subject}_refined"
    return name, replace(context, refits={name: Refined(subject, refine), **context.refits})

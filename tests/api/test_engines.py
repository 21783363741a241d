"""Every method of ModelPred that needs models of subsets takes `engine`; the others are listed with the reason."""

import inspect

import pytest

from modelpred import ModelPred
from modelpred.errors import InvalidInput

FULL = "of the model of all rows, which is trained exactly"
FIXED = "its name says which engine answers"
JUDGED = "shows predicted beside retrained models"
STATE = "needs no model of a subset"
WITHOUT_ENGINE = {
    **dict.fromkeys(("decision_function", "predict", "predict_proba", "score", "fit"), FULL),
    **dict.fromkeys(("full_model", "reliability", "to_sklearn", "to_torch"), FULL),
    **dict.fromkeys(("predict_parameters", "retrain"), FIXED),
    "certificate": "bounds the error of predictions",
    "forget": "trains the model without the rows exactly, so that nothing of them is left",
    "training_effects": "differentiates a few trainings",
    "cleaned": "leaves out the rows that suspects() has listed",
    **dict.fromkeys(("fidelity", "report"), JUDGED),
    **dict.fromkeys(("from_torch", "get_params", "load", "save", "set_params"), STATE),
}
METHODS = {
    name: inspect.signature(member).parameters
    for name, member in inspect.getmembers(ModelPred, callable)
    if not name.startswith("_")
}


def test_methods_take_an_engine_or_are_listed_with_the_reason():
    without = {name for name, parameters in METHODS.items() if "engine" not in parameters}
    # scikit-learn's own methods for metadata and HTML come and go with its version.
    own = {name for name in without if name in vars(ModelPred) or name in WITHOUT_ENGINE}
    inherited = {
        name
        for name in without - own
        if (inspect.getmodule(getattr(ModelPred, name)) or inspect).__name__.startswith("modelpred")
    }
    assert own | inherited == set(WITHOUT_ENGINE)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - WITHOUT_ENGINE))
def test_the_engine_is_chosen_by_default(name):
    if "engine" in METHODS[name]:
        assert METHODS[name]["engine"].default == "auto"
        assert METHODS[name]["engine"].kind is inspect.Parameter.KEYWORD_ONLY


CALLS = {
    "without": lambda mp, **options: mp.without([0], **options),
    "reweighted": lambda mp, **options: mp.reweighted({mp.row_ids[0]: 2.0}, **options),
    "values": lambda mp, **options: mp.values(**options),
    "suspects": lambda mp, **options: mp.suspects(**options),
    "memorization": lambda mp, **options: mp.memorization(**options),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_unknown_engine_is_refused_in_one_line(logistic, name):
    with pytest.raises(InvalidInput, match="expected one of auto, exact, predicted") as refused:
        CALLS[name](logistic, engine="exactly")
    assert "\n" not in str(refused.value)

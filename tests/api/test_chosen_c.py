"""C="auto" is chosen by validation at the fit."""

import numpy as np
import pytest
import torch

from modelpred import InvalidInput, ModelPred
from modelpred.refits import Retraining
from modelpred.targets import TargetsConfig, points_of
from modelpred.targets.regularisation import FOLDS, GRID, fold_numbers
from modelpred.targets.scoring import mean_test_losses


@pytest.mark.parametrize("target", ["auto", "logistic", "svm"])
def test_c_auto_is_the_best_c_of_the_grid_by_folds_that_are_trained_alone(target, tmp_path):
    draws = np.random.default_rng(7)
    cells = draws.normal(size=(60, 3))
    labels = np.where(cells[:, 0] + draws.normal(size=60) > 0, "yes", "no")
    mp = ModelPred(target, C="auto", progress=False).fit(cells, labels)
    chosen = mp.model.settings["C"]
    assert f"C = {chosen:g} by validation" in repr(mp)
    assert mp.get_params()["C"] == "auto"

    data = mp._fitted.dataset  # scaled rows, as training sees them
    fold = fold_numbers(data)
    losses = {}
    for value in GRID:
        total = 0.0
        for part in range(FOLDS):
            inside, out = (torch.from_numpy(fold != part), torch.from_numpy(fold == part))
            few = points_of(data.features[inside], data.labels[inside], 2)
            model = TargetsConfig(model=mp.model.name, C=value).build(classes=2)
            trained = Retraining(model, few, tolerance=1e-6)(torch.ones(1, len(few.labels)))
            rest = points_of(data.features[out], data.labels[out], 2)
            total += float(mean_test_losses(model, trained, rest)[0]) * len(rest.labels)
        losses[value] = total
    assert chosen == min(losses, key=losses.get)
    mp.save(tmp_path / "fit")
    again = ModelPred.load(tmp_path / "fit")
    assert again.model.settings["C"] == chosen
    assert np.array_equal(again.predict(cells), mp.predict(cells))


@pytest.mark.parametrize(
    ("settings", "fit", "told"),
    [
        ({"target": "mlp", "C": "auto"}, {}, "mlp has no setting 'C'"),
        ({"target": "logistic", "C": "best"}, {}, "C"),
        ({"target": "logistic", "C": "auto"}, {"sample_weight": [1.0] * 60}, "takes no sample_weight"),
    ],
)  # fmt: skip
def test_c_auto_where_it_cannot_be_chosen_is_refused_in_one_line(settings, fit, told):
    with pytest.raises(InvalidInput, match=rf"^[^\n]*{told}[^\n]*$"):
        ModelPred(**settings, progress=False).fit(np.eye(60)[:, :3], ["a", "b"] * 30, **fit)

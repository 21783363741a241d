"""Questions from outside are answered as the predictor answers, or refused with a reason."""

import numpy as np
import pytest
import torch

from modelpred.dataset import DatasetConfig, prepare
from modelpred.errors import InvalidInput
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.predictor.request_handler import (
    Limits,
    RequestHandler,
    read_test_points,
    write_test_points,
)
from modelpred.subsets import draw
from modelpred.targets import dataset_points, dataset_test_points, target_model, train_targets


@pytest.fixture(scope="module")
def known():
    """A predictor of 30 rows of iris, and test rows."""
    dataset = prepare(DatasetConfig(source="iris", points=30, test=20))
    model = target_model("logistic", C=1.0)
    points = dataset_points(dataset)
    weights = draw("uniform", points=30, count=40, generator=np.random.default_rng(0)).double()
    trained = train_targets(model, dataset.features, dataset.labels, weights, classes=2)
    predictor = fit_predictor(
        PredictorConfig(epochs=1, width=16),
        model,
        points,
        weights,
        trained.parameters,
        row_ids=dataset.row_ids,
    )
    return predictor, dataset_test_points(dataset)


def test_rows_left_out_are_weights_of_zero(known):
    predictor, test_points = known
    lists = [list(predictor.row_ids[3:5]), [predictor.row_ids[7]], []]
    weights = torch.ones(3, 30, dtype=torch.float64)
    weights[0, 3:5] = 0
    weights[1, 7] = 0

    told = RequestHandler(predictor, test_points=test_points).without(
        torch.ones(1, 30), lists, refine=1
    )

    expected = predictor.predict(weights, refine=1)
    bound = predictor.certificate(weights, expected)
    scores = predictor.model.scores(expected, test_points.features)
    losses = predictor.model.losses(scores, test_points.labels).mean(1)
    for row, answer in enumerate(told):
        assert answer["parameters"] == expected[row].tolist()
        assert answer["loss"] == pytest.approx(float(losses[row]), rel=1e-12)
        assert answer["certificate"] == float(bound[row])


def test_without_test_rows_there_is_no_loss_and_a_missing_class_has_no_certificate(known):
    predictor, _ = known
    first = predictor.points.labels == 0
    one_class = [name for name, left in zip(predictor.row_ids, first, strict=True) if left]
    (told,) = RequestHandler(predictor).without(torch.ones(1, 30), [one_class])
    assert told["loss"] is None
    assert told["certificate"] is None


@pytest.mark.parametrize(
    ("weights", "lists", "told"),
    [
        (
            torch.ones(1, 30),
            [["no such row", "../etc"]],
            r"unknown rows .*'\.\./etc'.*30 training rows",
        ),
        (torch.ones(2, 30), [["0"], ["0"], ["0"]], "one row of weights, or one for each of the 3"),
        (torch.ones(1, 20), [[]], "weights have 20 points but the data set has 30"),
        (torch.ones(1, 30) * torch.nan, [[]], "finite and not negative"),
        (torch.ones(1, 30), [[]] * 11, "at most 10 subsets at once"),
    ],
)
def test_questions_that_are_none_are_refused_with_a_reason(known, weights, lists, told):
    with pytest.raises(InvalidInput, match=told):
        RequestHandler(known[0], limits=Limits(weights=300)).without(weights, lists)


def test_only_so_much_is_answered_at_once(known):
    answers = RequestHandler(known[0], limits=Limits(weights=300, refine=20))
    assert answers.parameters(torch.ones(10, 30)).shape == (10, 5)
    with pytest.raises(InvalidInput, match="send at most 10 subsets at once"):
        answers.parameters(torch.ones(11, 30))
    with pytest.raises(InvalidInput, match="refine is 21; at most 20"):
        answers.parameters(torch.ones(1, 30), refine=21)


def test_test_rows_come_back_and_damaged_ones_do_not(known, tmp_path):
    predictor, test_points = known
    assert read_test_points(tmp_path, predictor) is None
    write_test_points(test_points, tmp_path)
    back = read_test_points(tmp_path, predictor)
    assert torch.equal(back.features, test_points.features)
    assert torch.equal(back.labels, test_points.labels)
    path = tmp_path / "test.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InvalidInput, match="cannot be used"):
        read_test_points(tmp_path, predictor)

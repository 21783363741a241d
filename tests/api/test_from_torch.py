"""ModelPred of the last layer of a torch module, on rows as the module takes them."""

import copy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch import nn

from modelpred import ModelPred
from modelpred.errors import InvalidInput
from modelpred.estimators import TorchHead, adapted_module
from modelpred.targets import target_model, train_targets

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist.parquet"
ROWS = 36
LOSSES = {
    "cross_entropy": nn.functional.cross_entropy,
    "binary_cross_entropy": lambda out, y: nn.functional.binary_cross_entropy_with_logits(
        out[:, 0], y.double()
    ),
    "mse": lambda out, y: nn.functional.mse_loss(out[:, 0], y),
}


class Network(nn.Module):
    """A small network of images, with all that is harmless in a frozen part."""

    def __init__(self, *, seed=0, outputs=3, bias=True, end=None):
        super().__init__()
        self.frozen = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(48, 4), nn.Tanh(),
        )  # fmt: skip
        self.head = nn.Linear(4, outputs, bias=bias)
        self.end = end or nn.Identity()
        generator = torch.Generator().manual_seed(seed)
        for each in self.parameters():
            nn.init.normal_(each, std=0.5, generator=generator)

    def forward(self, images):
        """Scores."""
        return self.end(self.head(self.frozen(images)))


def images(rows=ROWS, *, seed=0):
    return torch.rand(rows, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def labels(kind, rows=ROWS, *, seed=0):
    generator = np.random.default_rng(seed)
    if kind == "mse":
        return torch.from_numpy(generator.normal(size=rows))
    classes = 3 if kind == "cross_entropy" else 2
    return torch.from_numpy(generator.permutation(np.arange(rows) % classes))


def fitted(module, rows, column, **arguments):
    model = ModelPred.from_torch(module, subsets=20, progress=False, **arguments)
    return model.fit(rows, column)


@pytest.fixture(scope="module")
def model():
    """A fit of three classes."""
    return fitted(Network().eval(), images(), labels("cross_entropy"), layer="head", C=0.3)


@settings(max_examples=30, deadline=None)
@given(
    loss=st.sampled_from(sorted(LOSSES)),
    seed=st.integers(0, 10**6),
    decay=st.sampled_from([0.01, 0.1, 1.0]),
    bias=st.booleans(),
)
def test_the_head_minimises_the_objective_that_torch_writes_with_this_weight_decay(
    loss, seed, decay, bias
):
    module = Network(seed=seed, outputs=3 if loss == "cross_entropy" else 1, bias=bias).eval()
    rows, column = images(seed=seed), labels(loss, seed=seed)
    head, features = adapted_module(
        TorchHead(module, weight_decay=decay), rows, column, sample_weight=None, what="X"
    )
    family = target_model(head.target.family, **head.target.settings)
    everything = np.ones((1, ROWS))
    trained = train_targets(family, features, column.numpy(), everything, tolerance=1e-8)
    found = head.with_head(trained.parameters[0]).double()
    objective = LOSSES[loss](found(rows.double()), column)
    objective = objective + decay / 2 * found.head.weight.square().sum()
    slopes = torch.autograd.grad(objective, list(found.head.parameters()))
    # The head is kept in float32.
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-5


@given(rows=st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=10))
@settings(max_examples=10, deadline=None)
def test_the_module_with_the_edited_head_predicts_what_the_edited_model_does(model, rows):
    edited = model.without(sorted(rows))
    module = edited.to_torch().eval()
    new = images(20, seed=7)
    chances = module(new).softmax(1).detach().numpy()
    np.testing.assert_allclose(chances, edited.predict_proba(new), atol=1e-5)


def test_the_model_of_a_subset_is_the_head_fitted_to_the_features_of_its_rows(model):
    kept = [row for row in range(ROWS) if row % 4]
    alone = fitted(Network().eval(), images()[kept], labels("cross_entropy")[kept], C=0.3)
    weights = np.isin(np.arange(ROWS), kept).astype(float)
    edited = model.model_for(weights).retrained()
    np.testing.assert_allclose(edited.parameters, alone.full_parameters, rtol=1e-5, atol=1e-6)


def test_nothing_of_the_module_but_a_copy_of_its_head_changes():
    module = Network()
    before = copy.deepcopy(module.state_dict())
    head = fitted(module, images(), labels("cross_entropy")).without([0, 5]).to_torch()
    assert module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(tensor, head.state_dict()[name]) != name.startswith("head")


def test_a_head_that_shares_its_weights_leaves_the_frozen_part_as_it_was():
    module = nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 3))
    module[3].weight = module[0].weight
    tokens = torch.arange(ROWS * 2).reshape(ROWS, 2) % 3
    head = fitted(module, tokens, labels("cross_entropy")).to_torch()
    assert torch.equal(head[0].weight, module[0].weight)
    assert not torch.equal(head[3].weight, module[3].weight)


@pytest.mark.parametrize("end", [nn.LogSoftmax(1), nn.Softmax(1)], ids=["log_softmax", "softmax"])
def test_a_module_may_end_in_probabilities(end):
    module = Network(end=end).eval()
    model = fitted(module, images(), labels("cross_entropy"))
    found = model.to_torch()(images()).detach().numpy()
    found = np.exp(found) if isinstance(end, nn.LogSoftmax) else found
    np.testing.assert_allclose(found, model.predict_proba(images()), atol=1e-5)


class Text(nn.Module):
    """Takes token ids and a mask, and returns an object with logits, as transformers do."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 5), nn.Linear(5, 2)
        for each in self.parameters():
            nn.init.normal_(each, generator=torch.Generator().manual_seed(3))

    def forward(self, tokens, mask):
        """Scores of the mean embedding."""
        found = (self.embedding(tokens) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return type("Output", (), {"logits": self.head(found)})()


def test_inputs_go_to_the_module_by_the_names_of_its_arguments():
    tokens = torch.arange(ROWS * 4).reshape(ROWS, 4) % 11
    rows = {"tokens": tokens, "mask": (tokens > 2).float() + 0.1}
    words = np.array(["ham", "spam"])[labels("binary_cross_entropy").numpy()]
    model = fitted(Text(), rows, words, batch_size=5)
    some = {name: each[:4] for name, each in rows.items()}
    assert set(model.predict(some)) <= {"ham", "spam"}
    assert model.without([0]).predict_proba(some).shape == (4, 2)
    model.forget([1, 2])
    assert len(model.row_ids) == ROWS - 2


def test_the_size_of_batches_changes_features_by_rounding_only():
    one, other = (
        fitted(Network().eval(), images(), labels("cross_entropy"), batch_size=size)
        for size in (1, 100)
    )
    np.testing.assert_allclose(one.full_parameters, other.full_parameters, rtol=1e-4, atol=1e-5)


def test_all_methods_take_rows_as_the_module_does(model):
    test = images(10, seed=5), labels("cross_entropy", 10, seed=5)
    assert model.values(*test, permutations=4).height == ROWS
    assert model.select(5, *test, swaps=0).height == 5
    assert len(model.with_points(*test).weights) == ROWS + 10
    assert model.explain(test[0][:1]) is not None
    assert model.score(*test) <= 1
    assert model.suspects().rows.height == ROWS
    assert "unit_3" in model.without([0]).coefficients()["column"].to_list()
    assert np.isfinite(model.attribute(("1", "unit_2")).rows["change"].to_numpy()).all()


def test_a_fit_may_be_cloned_and_told_apart(model):
    again = clone(model).fit(images(), labels("cross_entropy"))
    assert np.array_equal(again.full_parameters, model.full_parameters)
    assert "layer 'head' of Network as softmax" in repr(model)
    assert "TorchHead(Network" in repr(clone(model))


class Twice(Network):
    """Adds up what its last layer gives for two inputs."""

    def forward(self, images):
        """The sum."""
        return self.head(self.frozen(images)) + self.head(self.frozen(images) * 2)


REFUSED = {
    "no such layer": (lambda: ModelPred.from_torch(Network(), layer="top"), "'top' is no nn.Linear"),
    "a layer that is not linear": (
        lambda: ModelPred.from_torch(Network(), layer="frozen.0"), "'frozen.0' is no nn.Linear"),
    "no linear layer": (lambda: ModelPred.from_torch(nn.Tanh()), "has no nn.Linear"),
    "a class": (lambda: ModelPred.from_torch(Network), "expected an instance of nn.Module"),
    "both strengths": (
        lambda: ModelPred.from_torch(Network(), C=1, weight_decay=1), "pass one of them"),
    "no strength": (lambda: ModelPred.from_torch(Network(), C=0.0), "C is 0.0; expected"),
    "unknown loss": (lambda: ModelPred.from_torch(Network(), loss="hinge"), "unknown loss 'hinge'"),
    "unknown argument": (lambda: ModelPred.from_torch(Network(), hidden=3), "hidden is a setting"),
    "another layer than the last": (
        lambda: fitted(Network(), images(), labels("cross_entropy"), layer="frozen.5"),
        "layer 'frozen.5' has 4 outputs|y has 3 classes but layer 'frozen.5'"),
    "scores that are added up": (
        lambda: fitted(Twice(), images(), labels("cross_entropy")), "it was used 2 times"),
    "more after the layer": (
        lambda: fitted(Network(end=nn.Tanh()), images(), labels("cross_entropy")),
        "does not end with layer 'head'"),
    "too few classes": (
        lambda: fitted(Network(), images(), labels("binary_cross_entropy")),
        "y has 2 classes but layer 'head' with cross_entropy is for 3"),
    "a loss of one output": (
        lambda: fitted(Network(), images(), labels("mse"), loss="mse"), "which mse does not take"),
    "rows of another shape": (
        lambda: fitted(Network(), images()[..., 1:], labels("cross_entropy")),
        "the module fails on a batch of shape"),
    "words": (
        lambda: fitted(Network(), np.array([["a"]] * ROWS), labels("cross_entropy")),
        "X holds other things than numbers"),
    "missing cells": (
        lambda: fitted(Network().eval(), images() * torch.nan, labels("cross_entropy")),
        "values that are not finite"),
    "labels of other rows": (
        lambda: fitted(Network(), images(), labels("cross_entropy", 30)), "30 labels for 36 rows"),
    "a saved module": (
        lambda: fitted(Network(), images(), labels("cross_entropy")).save("folder"), "is not saved"),
    "an estimator asked of it": (
        lambda: fitted(Network(), images(), labels("cross_entropy")).to_sklearn(),
        "was made with a torch module"),
    "a module asked of a family": (
        lambda: ModelPred("softmax", subsets=20, progress=False)
        .fit(images().flatten(1), labels("cross_entropy")).to_torch(),
        "was not made with ModelPred.from_torch"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line(case):
    call, told = REFUSED[case]
    with pytest.raises(InvalidInput, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not MNIST.is_file(), reason="the images are not on this machine")
def test_the_head_of_a_convolutional_network_of_mnist():
    table = pl.read_parquet(MNIST)[:2000]
    pixels = np.array(table["image"].to_list(), dtype=np.float32).reshape(-1, 1, 28, 28) / 255
    digits = table["label"].to_numpy().astype(np.int64)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for each in network.parameters():
        nn.init.normal_(each, std=0.08, generator=generator)
    _train(network, torch.from_numpy(pixels[:1300]), torch.from_numpy(digits[:1300]))
    model = ModelPred.from_torch(network, weight_decay=1e-2, subsets=60, progress=False)
    model.fit(pixels[1300:1600], digits[1300:1600], test=(pixels[1600:], digits[1600:]))
    edited = model.without(range(20), refine=2)
    chances = edited.to_torch()(torch.from_numpy(pixels[1600:])).softmax(1).detach().numpy()
    np.testing.assert_allclose(chances, edited.retrained().predict_proba(pixels[1600:]), atol=0.02)
    assert model.score(pixels[1600:], digits[1600:]) > 0.8


def _train(network, pixels, digits):
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for batch in torch.randperm(len(digits), generator=generator).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(pixels[batch]), digits[batch]).backward()
            optimiser.step()

"""Training of torch modules on many subsets against torch's own optimisers, one model at a time."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelpred.errors import InvalidInput
from modelpred.subsets import Subsets
from modelpred.targets import TorchTarget, target_model, train_targets
from modelpred.targets.points import points_of
from modelpred.targets.shards import RowContents, shard_fingerprint
from modelpred.targets.torch_chain import chain_of, own_rows
from modelpred.targets.torch_modules import built

ROWS, FEATURES = 23, 12


def plain():
    return nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, 3))


def nested():
    return nn.Sequential(
        nn.Sequential(nn.Linear(FEATURES, 6, bias=False), nn.ReLU()), nn.Identity(),
        nn.Sequential(nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 3)),
    )  # fmt: skip


def images():
    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


class Shared(nn.Module):
    """Layers that share weights, a frozen layer and a buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight
        self.last = nn.Linear(FEATURES, 3)
        self.last.bias.requires_grad_(requires_grad=False)
        self.register_buffer("scale", torch.full((FEATURES,), 0.5))

    def forward(self, rows):
        """Scores."""
        return self.last(torch.tanh(self.second(torch.relu(self.first(rows * self.scale)))))


def one_output():
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.GELU(), nn.Linear(4, 1), nn.Flatten(0))


def dropped():
    return nn.Sequential(
        nn.Unflatten(1, (3, 4)), nn.Dropout1d(0.3), nn.Flatten(), nn.Linear(FEATURES, 8), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(8, 3),
    )  # fmt: skip


def squared(outputs, labels):
    return (outputs[:, 0] - labels).square()


def focal(outputs, labels):
    losses = nn.functional.cross_entropy(outputs, labels, reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses


TORCH_LOSSES = {
    "cross_entropy": lambda out, y: nn.functional.cross_entropy(out, y, reduction="none"),
    "binary_cross_entropy": lambda out, y: nn.functional.binary_cross_entropy_with_logits(
        out, y.double(), reduction="none"
    ),
    "mse": lambda out, y: nn.functional.mse_loss(out, y, reduction="none"),
}
SCHEDULERS = {
    "constant": lambda optimiser, _: torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1),
    "linear": lambda optimiser, steps: torch.optim.lr_scheduler.LinearLR(
        optimiser, 1.0, 0.0, total_iters=steps
    ),
    "cosine": torch.optim.lr_scheduler.CosineAnnealingLR,
}


def optimiser_of(target, parameters):
    decay = {"weight_decay": target.weight_decay}
    if target.optimizer == "sgd":
        return torch.optim.SGD(parameters, target.learning_rate, momentum=target.momentum, **decay)
    kind = torch.optim.Adam if target.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, target.learning_rate, **decay)


def loop(target, features, labels, weights):
    """Parameters of one model, by a loop over batches in torch."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(target.seed)
        module = target.build().double()
    trained = [each for each in module.parameters() if each.requires_grad]
    optimiser = optimiser_of(target, trained)
    steps = target.epochs * math.ceil(len(labels) / target.batch_size)
    scheduler = SCHEDULERS[target.schedule](optimiser, steps)
    loss = target.loss if callable(target.loss) else TORCH_LOSSES[target.loss]
    for epoch in range(target.epochs):
        order = np.random.default_rng([target.seed, epoch]).permutation(len(labels))
        for first in range(0, len(labels), target.batch_size):
            batch = torch.from_numpy(order[first : first + target.batch_size])
            losses = loss(module(features[batch]), labels[batch])
            shares = weights[batch] * len(labels) / weights.sum() / len(batch)
            optimiser.zero_grad()
            (losses * shares).sum().backward()
            optimiser.step()
            scheduler.step()
    return torch.cat([each.detach().flatten() for each in trained])


def pool(kind, *, seed=0):
    """Features, labels and weights of four subsets."""
    generator = np.random.default_rng(seed)
    features = torch.from_numpy(generator.normal(size=(ROWS, FEATURES)))
    classes = {"classes": 3, "two": 2, "numbers": 0}[kind]
    labels = torch.from_numpy(
        generator.integers(0, classes, ROWS) if classes else generator.normal(size=ROWS)
    )
    if classes:
        labels[:classes] = torch.arange(classes)
    weights = torch.from_numpy(generator.integers(0, 3, (4, ROWS))).double()
    weights[:, 0] += 1
    return features, labels, weights


CASES = {
    "plain": (plain, "cross_entropy", "classes"),
    "nested": (nested, "cross_entropy", "classes"),
    "line": (lambda: nn.Linear(FEATURES, 3), "cross_entropy", "classes"),
    "images": (images, "cross_entropy", "classes"),
    "shared": (Shared, "cross_entropy", "classes"),
    "own loss": (plain, focal, "classes"),
    "two classes": (one_output, "binary_cross_entropy", "two"),
    "numbers": (one_output, "mse", "numbers"),
}


@st.composite
def targets(draw, cases=tuple(CASES)):
    """A target in float64, and the kind of labels that it takes."""
    build, loss, kind = CASES[draw(st.sampled_from(cases))]
    optimizer = draw(st.sampled_from(["sgd", "adam", "adamw"]))
    target = TorchTarget(
        build=build,
        loss=loss,
        optimizer=optimizer,
        learning_rate=draw(st.sampled_from([0.01, 0.1])),
        schedule=draw(st.sampled_from(["constant", "linear", "cosine"])),
        momentum=draw(st.sampled_from([0.0, 0.9])) if optimizer == "sgd" else 0.0,
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
        batch_size=draw(st.sampled_from([1, 5, ROWS, 100])),
        epochs=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 10**6)),
        precision="float64",
    )
    return target, kind


def trained_by(target, features, labels, weights, **arguments):
    classes = None if target.regression else int(labels.max()) + 1
    return train_targets(target, features, labels, weights, classes=classes, **arguments)


@given(drawn=targets(), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_models_trained_together_are_those_that_torch_optim_trains_one_by_one(drawn, seed):
    target, kind = drawn
    features, labels, weights = pool(kind, seed=seed)
    found = trained_by(target, features, labels, weights).parameters
    expected = torch.stack([loop(target, features, labels, own) for own in weights])
    # Adam divides by roots of squared gradients, and makes rounding errors of tiny ones large.
    loose = 1e-9 if target.optimizer == "sgd" else 1e-6
    torch.testing.assert_close(found, expected, rtol=loose, atol=loose)


@given(drawn=targets(), seed=st.integers(0, 10**6), factor=st.sampled_from([2, 3, 0.5]))
@settings(max_examples=10, deadline=None)
def test_rows_of_weight_zero_and_a_factor_of_all_weights_change_nothing(drawn, seed, factor):
    target, kind = drawn
    features, labels, weights = pool(kind, seed=seed)
    weights = weights[:1]
    before = trained_by(target, features, labels, weights).parameters
    changed = torch.where((weights[0] == 0)[:, None], 7.0, features)
    after = trained_by(target, changed, labels, weights * factor).parameters
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


@given(
    build=st.sampled_from([plain, images, dropped]),
    precision=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=10, deadline=None)
def test_a_model_does_not_depend_on_what_is_trained_with_it(build, precision, seed):
    target = TorchTarget(build=build, precision=precision, batch_size=5, epochs=2, seed=seed)
    features, labels, weights = pool("classes", seed=seed)
    together = trained_by(target, features, labels, weights).parameters
    alone = trained_by(target, features, labels, weights, block=1).parameters
    assert together.dtype == getattr(torch, precision)
    loose = 1e-4 if precision == "float32" else 1e-12
    torch.testing.assert_close(together, alone, rtol=loose, atol=loose)
    again = trained_by(target, features, labels, weights[[2, 2]]).parameters
    assert torch.equal(again[0], again[1])


def gelu():
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.GELU(), nn.Linear(4, 3))


def twice():
    layer = nn.Linear(FEATURES, FEATURES)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(FEATURES, 3))


@pytest.mark.parametrize(
    ("build", "layers"),
    [(plain, 2), (nested, 3), (images, 0), (dropped, 0), (Shared, 0), (gelu, 0), (twice, 0)],
)
def test_only_linear_layers_with_known_slopes_are_a_chain(build, layers):
    chain = chain_of(built(build, 0))
    assert len(chain or ()) == layers


@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.2, 0.5, 0.9, 1.0]))
@settings(max_examples=20, deadline=None)
def test_gathered_rows_are_those_with_a_share(seed, share):
    generator = np.random.default_rng(seed)
    rows = torch.from_numpy(generator.permutation(50)[:20])
    shares = torch.from_numpy((generator.random((3, 20)) < share) * generator.random((3, 20)))
    own, kept = own_rows(rows, shares)
    found, expected = torch.zeros(3, 50), torch.zeros(3, 50)
    found.scatter_add_(1, own.expand(kept.shape), kept.float())
    expected.scatter_add_(1, rows.expand(3, -1), shares.float())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_dropout_follows_the_seed_and_the_step_and_ends_with_training():
    features, labels, weights = pool("classes")
    target = TorchTarget(build=dropped, batch_size=5, epochs=2, seed=3)
    found, again = (trained_by(target, features, labels, weights).parameters for _ in range(2))
    assert torch.equal(found, again)
    other = trained_by(
        TorchTarget(build=dropped, batch_size=5, epochs=2, seed=4), features, labels, weights
    )
    assert not torch.allclose(found, other.parameters, atol=1e-2)
    module = copy.deepcopy(dropped()).eval()
    module.load_state_dict(dict(zip(module.state_dict(), _parts(target, found[0]), strict=True)))
    expected = module(features.float())
    torch.testing.assert_close(target.scores(found, features)[0], expected, rtol=1e-5, atol=1e-5)


def _parts(target, parameters):
    return target.module.split(parameters).values()


def test_a_mask_of_dropout_is_that_of_its_step_and_keeps_the_mean():
    module = built(dropped, 0).own_module(training=True)[5]
    module.key = (0, 1)
    once, twice = module(torch.ones(400, 50)), module(torch.ones(400, 50))
    module.key = (0, 2)
    assert torch.equal(once, twice)
    assert not torch.equal(once, module(torch.ones(400, 50)))
    assert abs(float(once.mean()) - 1) < 0.05  # 20,000 draws of 0 or 2: a standard error of 0.007


def test_training_leaves_the_generator_of_torch_alone():
    before = torch.get_rng_state()
    features, labels, weights = pool("classes")
    trained_by(TorchTarget(build=dropped, epochs=1, seed=77), features, labels, weights)
    assert torch.equal(torch.get_rng_state(), before)


@given(drawn=targets(), seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_the_gradient_is_that_of_the_objective(drawn, seed):
    target, kind = drawn
    features, labels, weights = pool(kind, seed=seed)
    points = points_of(features, labels, 0 if kind == "numbers" else int(labels.max()) + 1)
    theta = target.module.start[None] + 0.1 * torch.randn(
        4, target.module.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    theta.requires_grad_()
    expected = torch.autograd.grad(target.objective(theta, weights, points).sum(), theta)[0]
    found = target.gradient(theta.detach(), weights, points)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_blocks_by_bytes_change_no_score(monkeypatch):
    target = TorchTarget(build=images, precision="float64")
    features, _, weights = pool("classes")
    theta = target.prior(weights[:, :3], FEATURES) * torch.tensor([[1.0], [2.0], [0.5], [0.0]])
    whole = target.scores(theta, features)
    monkeypatch.setattr("modelpred.targets.torch_target.ACTIVATION_BYTES", 5000)
    torch.testing.assert_close(target.scores(theta, features), whole, rtol=1e-12, atol=1e-12)


def test_a_shard_is_that_of_a_pool_of_these_rows_in_this_order():
    block = Subsets(("a",), ("fit",), ("uniform",), torch.tensor([[1, 0, 2]], dtype=torch.uint8))
    longer = replace(block, weights=torch.tensor([[1, 0, 2, 0]], dtype=torch.uint8))
    moved = replace(block, weights=torch.tensor([[0, 1, 2]], dtype=torch.uint8))
    first, second = RowContents((b"x", b"y", b"z"), 3), RowContents((b"y", b"x", b"z"), 3)
    grown = RowContents((*first.digests, b"new"), 3)
    target = TorchTarget(build=plain)
    own = shard_fingerprint(first, target, 1e-6, block)
    assert own != shard_fingerprint(grown, target, 1e-6, longer)
    assert own != shard_fingerprint(second, target, 1e-6, moved)
    family = target_model("softmax")
    assert shard_fingerprint(first, family, 1e-6, block) == shard_fingerprint(
        grown, family, 1e-6, longer
    )


def test_an_empty_subset_has_the_start():
    target = TorchTarget(build=plain, epochs=1, precision="float64")
    features, labels, weights = pool("classes")
    weights[1] = 0
    found = trained_by(target, features, labels, weights)
    assert torch.equal(found.parameters[1], target.module.start)
    assert found.degenerate[1]


def test_a_training_that_diverges_is_not_converged():
    target = TorchTarget(build=one_output, loss="mse", learning_rate=1e6, epochs=5)
    features, labels, weights = pool("numbers")
    assert not trained_by(target, features, labels, weights).converged.any()


def normed():
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def test_a_loss_of_numbers_takes_no_classes():
    with pytest.raises(InvalidInput, match="is for labels that are numbers"):
        TorchTarget(build=one_output, loss="mse").parameter_count(FEATURES, 3)


class Random(nn.Module):
    """Draws in its forward."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(FEATURES, 3)

    def forward(self, rows):
        """Scores, with dropout by a function."""
        return self.linear(nn.functional.dropout(rows, training=self.training))


REFUSED = {
    "batch norm": ({"build": normed}, "use GroupNorm or LayerNorm in its place"),
    "running statistics": (
        {"build": lambda: nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True), plain())},
        "use track_running_stats=False"),
    "alpha dropout": (
        {"build": lambda: nn.Sequential(nn.AlphaDropout(), plain())}, "use nn.Dropout in its place"),
    "dropout of a layer": (
        {"build": lambda: nn.LSTM(3, 3, 2, dropout=0.5)}, "use dropout=0 in LSTM"),
    "draws in forward": ({"build": Random}, "draws random numbers in its forward"),
    "no function": ({"build": plain()}, "build is Sequential, expected a function"),
    "no module": ({"build": lambda: None}, "expected an instance of nn.Module"),
    "no parameter": ({"build": nn.Tanh}, "has no parameter to train"),
    "other features": ({"build": lambda: nn.Linear(3, 3)}, "fails on rows of 12 features"),
    "other classes": ({"build": lambda: nn.Linear(FEATURES, 4)}, "has 4 outputs, but there are 3"),
    "one output": ({"build": one_output}, "has 1 outputs, but there are 3"),
    "a mean loss": (
        {"build": plain, "loss": nn.functional.cross_entropy}, "expected one value a row"),
    "a loss that fails": (
        {"build": plain, "loss": lambda outputs, labels: outputs @ labels}, "the loss fails on"),
    "a loss": ({"build": plain, "loss": "hinge"}, "unknown loss 'hinge'"),
    "an optimiser": ({"build": plain, "optimizer": "lion"}, "optimizer is 'lion'; expected one of"),
    "a schedule": ({"build": plain, "schedule": "step"}, "schedule is 'step'; expected one of"),
    "a rate": ({"build": plain, "learning_rate": 0}, "a learning_rate above zero"),
    "a momentum": ({"build": plain, "momentum": 1.0}, "a momentum below one"),
    "momentum of adam": ({"build": plain, "optimizer": "adam", "momentum": 0.5}, "belongs to sgd"),
    "epochs": ({"build": plain, "epochs": 1.5}, "epochs is 1.5"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_refused_in_one_line(case):
    arguments, told = REFUSED[case]
    features, labels, weights = pool("classes")
    with pytest.raises(InvalidInput, match=told) as caught:
        trained_by(TorchTarget(**arguments), features, labels, weights)
    assert "\n" not in str(caught.value)

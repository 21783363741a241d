"""The kernels in C: torch's results, independence of the rest of the batch, and what torch must train."""

import hashlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.targets import points_of, target_model, train_targets
from modelpred.targets.compiled import kernels
from modelpred.targets.compiled.newton import MOST_CLASSES, WIDEST, compiled_solver
from modelpred.targets.solving import Solution
from tests.benchmarks import sanitize

NAMES = {"logistic": 2, "svm": 2, "svm-many": 4, "softmax": 3, "ridge": 0, "mlp": 3}


@pytest.fixture(scope="module", params=kernels.kinds())
def kind(request):
    """Each kind of kernels that this processor can run."""
    found = kernels.loaded(request.param)
    if found is None:
        pytest.skip(f"kernels of kind {request.param} were not compiled at installation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", lambda: found)
        yield request.param


def by_torch(*arguments, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", lambda: None)
        return train_targets(*arguments, **options)


def problem(name, *, points, features, classes, seed=0):
    """Features, labels and weights with every class in every subset."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(points, features))
    scores = table @ generator.normal(size=(features, max(classes, 1)))
    scores += generator.normal(size=scores.shape)
    labels = scores.argmax(1) if classes > 2 else (scores[:, 0] > 0).astype(int)
    labels[:classes] = np.arange(classes)
    weights = generator.integers(0, 4, size=(12, points)) * generator.integers(0, 2, (12, points))
    weights[:, : max(classes, 1)] = 1
    # Whole numbers and others, and subsets that are nearly all or nearly none of the pool.
    weights = np.concatenate([weights, weights * 0.7, np.ones((1, points))])
    weights[0, classes + 1 :] = 0
    return table, scores[:, 0] if name == "ridge" else labels, weights


def same(name, trained, expected):
    assert np.array_equal(trained.degenerate, expected.degenerate)
    assert trained.converged.all()
    assert expected.converged.all()
    if name != "mlp":
        assert trained.gradient_norm.max() <= 1e-6
    # Both ends of a convex problem have gradients of 1e-10; a network's 30 steps in float32 differ
    # by what they round.
    near = 2e-5 if name == "mlp" else 1e-7
    scale = max(1, np.abs(expected.parameters).max())
    assert np.abs(trained.parameters - expected.parameters).max() <= near * scale
    np.testing.assert_allclose(
        trained.objective, expected.objective, rtol=1e-6 if name == "mlp" else 1e-9, atol=1e-12
    )


def model_of(name, **settings):
    family = name.split("-")[0]
    return target_model(family, **({"steps": 30, **settings} if family == "mlp" else {"C": 0.7}))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("points", "features"), [(50, 6), (90, 70), (300, 20)])
def test_kernels_give_the_answers_of_torch(kind, name, points, features):
    inputs = problem(name, points=points, features=features, classes=NAMES[name])
    model = model_of(name)
    same(name, train_targets(model, *inputs), by_torch(model, *inputs))


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(NAMES)),
    points=st.integers(14, 70),
    features=st.integers(1, 45),
    more=st.tuples(st.integers(2, 13), st.integers(1, 21), st.integers(0, 1000)),
)
def test_no_shape_is_special(kind, name, points, features, more):
    classes, hidden, seed = more
    many = classes if NAMES[name] > 2 else NAMES[name]
    inputs = problem(name, points=points, features=features, classes=many, seed=seed)
    # Few and small steps of the network: long ones from few points enlarge what they round.
    model = model_of(name, hidden=hidden, steps=5, learning_rate=0.1)
    same(name, train_targets(model, *inputs), by_torch(model, *inputs))


@pytest.mark.parametrize("name", NAMES)
def test_company_changes_no_bit(kind, name):
    features, labels, weights = problem(name, points=80, features=12, classes=NAMES[name])
    model = model_of(name)
    together = train_targets(model, features, labels, weights).parameters
    for block in (1, 5):
        parts = train_targets(model, features, labels, weights, block=block).parameters
        assert np.array_equal(parts, together)
    for row in (0, 7, 24):
        alone = train_targets(model, features, labels, weights[row : row + 1]).parameters
        assert np.array_equal(alone[0], together[row])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mlp"])
def test_any_start_leads_to_the_same_answer(kind, name):
    features, labels, weights = problem(name, points=60, features=5, classes=NAMES[name])
    model = model_of(name)
    usual = train_targets(model, features, labels, weights)
    start = np.random.default_rng(5).normal(size=usual.parameters.shape)
    again = train_targets(model, features, labels, weights, start=start)
    assert np.abs(again.parameters - usual.parameters).max() <= 1e-8


@pytest.mark.parametrize("offset", [0, 30, 1e5])
@pytest.mark.parametrize("name", ["logistic", "svm", "ridge", "softmax"])
def test_gradient_norms_are_those_of_the_parameters(kind, name, offset):
    features, labels, weights = problem(name, points=60, features=5, classes=NAMES[name])
    features[:, 2] += offset
    model = model_of(name)
    trained = train_targets(model, features, labels, weights)
    points = points_of(features, labels, NAMES[name])
    gradient = model.gradient(torch.tensor(trained.parameters), torch.tensor(weights), points)
    told = np.abs(trained.gradient_norm - gradient.abs().amax(1).numpy()).max()
    # Sums over a column of 1e5 round in float64 itself: torch's solver is off by 6e-6 there, too.
    assert told <= (1e-10 if offset < 1e5 else 1e-4)


def test_rows_that_a_kernel_gives_up_are_trained_by_the_other_solver(kind):
    features, labels, weights = problem("logistic", points=40, features=4, classes=2)
    given = []

    def other(weights, *, start, tolerance):
        given.append((weights, start, tolerance))
        count = len(weights)
        return Solution(
            parameters=torch.full((count, 5), 7.0).double(),
            gradient_norm=torch.zeros(count).double(),
            objective=torch.zeros(count).double(),
            iterations=torch.full((count,), 3),
            converged=torch.ones(count, dtype=torch.bool),
        )

    # Not the first: of so few points a gradient can be zero to the last bit.
    points, table = points_of(features, labels), torch.tensor(weights[1:])
    solver = compiled_solver("logistic", target_model("logistic"), points, otherwise=lambda: other)
    assert solver is not None
    reached = solver(table, start=None, tolerance=1e-6)
    assert not given
    assert bool((reached.parameters != 7).any())
    # No gradient is that small, so that none gets there.
    left = solver(table, start=None, tolerance=1e-300)
    assert bool((left.parameters == 7).all())
    assert left.iterations.unique().tolist() == [3]
    assert len(given) == 1
    assert torch.equal(given[0][0], table)


def test_pools_that_do_not_suit_them_are_left_to_torch(kind):
    def solver(points, features, device="cpu"):
        table = torch.ones(points, features, dtype=torch.float64, device=device)
        labels = torch.arange(points, device=device) % 2
        pool = points_of(torch.zeros_like(table) if device == "meta" else table, labels, 2)
        return compiled_solver("logistic", target_model("logistic"), pool, otherwise=pytest.fail)

    assert solver(40, 3) is not None
    assert solver(40, WIDEST) is None
    table = torch.zeros(300, 2, dtype=torch.float64)
    pool = points_of(table, torch.arange(300) % (MOST_CLASSES + 1), MOST_CLASSES + 1)
    assert compiled_solver("softmax", target_model("softmax"), pool, otherwise=pytest.fail) is None


@pytest.mark.parametrize(
    ("name", "points", "features", "classes"),
    [("logistic", 25_000, 100, 2), ("svm", 21_000, 100, 2), ("softmax", 600, 30, 90)],
)
def test_large_pools_and_many_classes_are_trained_by_the_kernels(name, points, features, classes):
    table, labels, _ = problem(name, points=points, features=features, classes=classes)
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)
    weights = np.ones((2, points))
    weights[1, 2 * classes :: 2] = 0
    model = target_model(name, C=0.01)
    pool = points_of(table, labels, classes)
    solver = compiled_solver(model.compiled, model, pool, otherwise=pytest.fail)
    found = solver(torch.tensor(weights), start=None, tolerance=1e-6)
    assert found.converged.all()
    expected = by_torch(model, table, labels, weights, classes=classes)
    assert np.abs(found.parameters.numpy() - expected.parameters).max() <= 1e-7


def test_without_a_compiler_there_is_none(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    features, labels, _ = problem("logistic", points=40, features=4, classes=2)
    model = target_model("logistic")
    assert compiled_solver("logistic", model, points_of(features, labels), otherwise=dict) is None


@pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("cc") is None, reason="there is no C compiler"
)
def test_with_a_compiler_there_is_one():
    assert kernels.library() is not None


def test_a_copy_of_the_code_finds_the_kernels_of_the_installation(kind, monkeypatch, tmp_path):
    # Where an experiment of DVC runs there are the files that git has, and no compiled ones.
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.py"))
    assert kernels.loaded(kind) is not None


def test_what_python_hands_over_changes_only_with_the_version():
    sources = Path(kernels.__file__).parent
    shapes = [
        found
        for source in sorted(sources.glob("*.[ch]"))
        for found in re.findall(
            r"typedef struct \{[^}]*\} (?:Pool|Network|Anchor|Counted);|^int modelpred_[^{]*",
            re.sub(r"/\*.*?\*/", "", source.read_text(), flags=re.DOTALL),
            re.MULTILINE,
        )
    ]
    digest = hashlib.sha256(" ".join(" ".join(shapes).split()).encode()).hexdigest()
    # A kernel that lies there from before would misread what it is handed: raise VERSION, in newton.c
    # and kernels.py, then write the new digest here. A further function needs no new version where
    # Python asks whether the kernels have it, as answers.available does.
    assert (kernels.VERSION, digest[:16]) == (4, "3efc2619aef086cf")


def test_kernels_of_another_source_are_not_used(kind, monkeypatch):
    monkeypatch.setattr(kernels, "VERSION", kernels.VERSION + 1)
    assert kernels.loaded(kind) is None


BUFFERS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([torch.float64, torch.float32, torch.int64, torch.bool]),
        "more": st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
        "dimensions": st.sampled_from([1, 2, 3]),
        "strided": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["logistic", "softmax", "mlp"]),
    which=st.sampled_from(["weights", "start", "parameters"]),
    buffer=BUFFERS,
)
def test_memory_that_a_kernel_would_misread_is_refused(kind, name, which, buffer):
    classes = NAMES[name]
    features, labels, _ = problem(name, points=20, features=3, classes=classes)
    model, points = model_of(name, hidden=4), points_of(features, labels, classes)
    size = model.parameter_count(3, classes)
    count = {"weights": 20, "start": size, "parameters": size}[which]
    shape = [4 + buffer["more"][0], count + buffer["more"][1]]
    shape = {1: shape[:1], 2: shape, 3: [*shape, 1]}[buffer["dimensions"]]
    tensor = torch.ones(shape).to(buffer["dtype"])
    if buffer["strided"] and tensor.ndim > 1:
        tensor = torch.ones(shape[::-1]).to(buffer["dtype"]).permute(*reversed(range(len(shape))))
    usable = tensor.dtype == torch.float64 and list(tensor.shape) == [4, count]
    usable &= tensor.is_contiguous()
    memory = {"weights": (torch.float64, ("subsets", "points"))}
    memory |= dict.fromkeys(("start", "parameters"), (torch.float64, ("subsets", "parameters")))
    axes = {"subsets": 4, "points": 20, "parameters": size}
    if usable:
        kernels.check(which, tensor, memory[which], axes)
    else:
        with pytest.raises(InvalidInput, match=f"{which} is .*the kernels expect"):
            kernels.check(which, tensor, memory[which], axes)
    if which != "parameters" and name != "mlp":
        solver = model.solver(points)
        inputs = {
            "weights": torch.ones(4, 20).double(),
            "start": torch.zeros(4, size).double(),
            which: tensor,
        }
        fits = tensor.dtype == torch.float64 and list(tensor.shape) == [4, count]
        if fits:
            solver(inputs["weights"], start=inputs["start"], tolerance=1e-6)
        else:
            with pytest.raises(InvalidInput, match="the kernels expect"):
                solver(inputs["weights"], start=inputs["start"], tolerance=1e-6)


@pytest.mark.skipif(kernels.loaded("plain") is None, reason="no kernels were built")
def test_the_sanitizers_problems_call_every_kernel(monkeypatch, capsys):
    """`make sanitize` runs them under the sanitizers, which takes minutes."""
    called = set()
    call = kernels.Shared.call

    def recorded(self, name, *arguments, **options):
        called.add(name)
        return call(self, name, *arguments, **options)

    monkeypatch.setattr(kernels.Shared, "call", recorded)
    monkeypatch.setattr(kernels, "library", kernels.library)  # exercise() replaces it
    sanitize.exercise(Path(kernels.loaded("plain")._name), problems=5)

    folder = Path(kernels.__file__).parent
    exported = {
        name
        for path in folder.glob("*.c")
        for name in re.findall(r"^int (modelpred_\w+)\(const", path.read_text(), re.MULTILINE)
    }
    assert called == exported
    assert capsys.readouterr().out == "5 problems, no fault\n"

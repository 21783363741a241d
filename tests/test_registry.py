"""One version per predictor, whatever happens in between; it loads without pickle and answers as the predictor does."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from modelpred.dataset import DatasetConfig, InvalidInput, prepare
from modelpred.predictor import (
    PredictorConfig,
    fit_predictor,
    predictor_fingerprint,
    read_predictor,
    write_predictor,
)
from modelpred.registry import (
    GatesConfig,
    Lineage,
    Version,
    held_out_errors,
    judge,
    list_versions,
    publish,
    registered_name,
    show_version,
    tracking_uri,
)
from modelpred.subsets import draw
from modelpred.targets import points_of, target_model, train_targets

NAME = "modelpred-iris-logistic"
GATES = GatesConfig(designs=("uniform",), parameter_error=0.2, beats=("influence",))
LINEAGE = Lineage(
    git_commit="0123abc",
    dvc={"artifacts/targets": "f00.dir"},
    params={"dataset": {"source": "iris"}, "targets": {"C": 1.0}},
    dataset_fingerprint="d" * 64,
)


def errors(low: float, high: float) -> dict[str, dict[str, float]]:
    """A method's held-out error with its interval, on uniform subsets."""
    middle = (low + high) / 2
    measures = {
        "parameter_error": middle,
        "parameter_error_low": low,
        "parameter_error_high": high,
    }
    return {"uniform": measures}


GOOD = {"predictor": errors(0.1, 0.12), "influence": errors(0.3, 0.4)}
POOR = {"predictor": errors(0.3, 0.5), "influence": errors(0.3, 0.4)}


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    return draw("uniform", points=30, count=40, generator=np.random.default_rng(0)).double()


def fit(weights: torch.Tensor, folder: Path, *, seed: int) -> Path:
    dataset = prepare(DatasetConfig(source="iris", points=30, test=20))
    model = target_model("logistic", C=1.0)
    points = points_of(dataset.features, dataset.labels, 2)
    trained = train_targets(model, dataset.features, dataset.labels, weights, classes=2)
    config = PredictorConfig(epochs=1, width=16, pooled=8, seed=seed)
    write_predictor(fit_predictor(config, model, points, weights, trained.parameters), folder)
    return folder


@pytest.fixture(scope="module")
def predictor(weights, tmp_path_factory) -> Path:
    return fit(weights, tmp_path_factory.mktemp("predictor"), seed=0)


@pytest.fixture(scope="module")
def other_predictor(weights, tmp_path_factory) -> Path:
    return fit(weights, tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """MLflow takes seconds to make its tables: made once, copied for each test."""
    from mlflow import MlflowClient  # noqa: PLC0415  (only these tests pay for it)

    root = tmp_path_factory.mktemp("database")
    MlflowClient(tracking_uri(root)).search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path, empty_database) -> Path:
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    return tmp_path


def publish_to(root: Path, folder: Path, *, metrics=GOOD) -> Version:
    return publish(
        folder, dataset_name="iris", metrics=metrics, lineage=LINEAGE, gates=GATES, root=root
    )


# --- gates -------------------------------------------------------------------------------------


def without(method: str, measure: str) -> dict[str, dict[str, dict[str, float]]]:
    metrics = json.loads(json.dumps(GOOD))
    del metrics[method]["uniform"][measure]
    return metrics


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        pytest.param(
            {"predictor": errors(0.1, 0.21), "influence": errors(0.3, 0.4)},
            ["uniform: parameter error up to 0.21, allowed 0.2"],
            id="the upper end is what counts",
        ),
        pytest.param(
            {"predictor": errors(0.1, 0.15), "influence": errors(0.14, 0.2)},
            ["uniform: parameter error up to 0.15 does not beat influence, from 0.14"],
            id="intervals overlap",
        ),
        pytest.param(
            {"predictor": errors(0.1, 0.15)},
            ["uniform: no held-out parameter error of influence"],
            id="a rival is missing",
        ),
        pytest.param(
            {"influence": errors(0.1, 0.15)},
            ["uniform: no held-out parameter error of the predictor"],
            id="the predictor is missing",
        ),
        pytest.param(
            without("predictor", "parameter_error_high"),
            ["uniform: no held-out parameter error of the predictor"],
            id="no interval",
        ),
        pytest.param(
            {"predictor": errors(0.1, math.nan), "influence": errors(0.3, 0.4)},
            ["uniform: no held-out parameter error of the predictor"],
            id="not a number",
        ),
        pytest.param(
            POOR,
            [
                "uniform: parameter error up to 0.5, allowed 0.2",
                "uniform: parameter error up to 0.5 does not beat influence, from 0.3",
            ],
            id="every reason is told",
        ),
    ],
)
def test_a_predictor_fails_the_gates_for_each_reason(metrics, told):
    assert judge(metrics, GATES) == (False, tuple(told))


def test_a_predictor_passes_when_every_design_does():
    assert judge(GOOD, GATES) == (True, ())
    both = GATES.model_copy(update={"designs": ("uniform", "deletion")})
    assert judge(GOOD, both) == (
        False,
        ("deletion: no held-out parameter error of the predictor",),
    )


def test_the_fidelity_table_becomes_nested_metrics():
    table = pl.DataFrame(
        {
            "method": ["predictor", "influence"],
            "design": ["uniform", "uniform"],
            "parameter_error_low": [0.1, 0.3],
            "parameter_error_high": [0.12, None],
        }
    )
    assert held_out_errors(table) == {
        "predictor": {"uniform": {"parameter_error_low": 0.1, "parameter_error_high": 0.12}},
        "influence": {"uniform": {"parameter_error_low": 0.3}},
    }


def test_names_hold_only_what_the_registry_takes():
    assert registered_name("spam", "logistic") == "modelpred-spam-logistic"
    assert registered_name("../my data:v2/x", "mlp") == "modelpred-..-my-data-v2-x-mlp"


# --- publishing --------------------------------------------------------------------------------


def test_publishing_twice_makes_one_version_with_lineage_and_metrics(root, predictor):
    assert publish_to(root, predictor) == Version(NAME, 1, True, ("champion",), ())
    assert publish_to(root, predictor) == Version(NAME, 1, False, ("champion",), ())
    (record,) = list_versions(root)
    assert record == show_version(root, NAME) == show_version(root, NAME, 1)
    assert record.fingerprint == predictor_fingerprint(predictor)
    assert record.tags["git_commit"] == "0123abc"
    assert record.tags["dvc.artifacts/targets"] == "f00.dir"
    assert record.tags["dataset_fingerprint"] == LINEAGE.dataset_fingerprint
    assert json.loads(record.tags["params"]) == LINEAGE.params
    assert record.params == {"dataset.source": "iris", "targets.C": "1.0"}
    assert record.metrics["predictor/uniform/parameter_error_high"] == 0.12
    assert record.metrics["influence/uniform/parameter_error_low"] == 0.3


def test_nothing_of_a_version_is_a_pickle(root, predictor):
    publish_to(root, predictor)
    files = [path for path in (root / "mlruns").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}
    (description,) = (path.read_text() for path in files if path.name == "MLmodel")
    assert "model_code_path" in description
    assert "python_model:" not in description


def test_the_process_is_left_as_it_was(root, predictor, capfd):
    import mlflow  # noqa: PLC0415  (only these tests pay for it)

    before = (dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run())
    publish_to(root, predictor)
    assert (dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()) == before
    assert capfd.readouterr() == ("", "")


def test_only_a_version_that_passes_becomes_champion(root, predictor, other_predictor):
    first = publish_to(root, predictor, metrics=POOR)
    assert first.aliases == ("challenger",)
    assert first.reasons == judge(POOR, GATES)[1]
    assert show_version(root, NAME, "challenger").tags["gates"] == "failed"
    with pytest.raises(InvalidInput, match=r"no version 'champion' of .*; there are: 1"):
        show_version(root, NAME)
    assert publish_to(root, other_predictor).aliases == ("champion",)
    assert show_version(root, NAME).version == 2


def test_publishing_an_older_version_again_moves_no_alias(root, predictor, other_predictor):
    publish_to(root, predictor)
    publish_to(root, other_predictor)
    assert publish_to(root, predictor) == Version(NAME, 1, False, (), ())
    assert show_version(root, NAME).version == 2


def test_an_interrupted_publication_is_finished_by_the_next(root, predictor, monkeypatch):
    from mlflow import MlflowClient  # noqa: PLC0415  (only these tests pay for it)

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    steps = (
        "log_batch",
        "log_model_artifacts",
        "create_model_version",
        "set_registered_model_alias",
        "set_model_version_tag",
    )
    for step in steps:
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, step, cut)
            with pytest.raises(KeyboardInterrupt):
                publish_to(root, predictor)
    assert publish_to(root, predictor) == Version(NAME, 1, False, ("champion",), ())
    assert len(list_versions(root)) == 1


def test_a_lost_database_and_lost_files_are_made_good_by_publishing_again(
    root, empty_database, predictor
):
    publish_to(root, predictor)
    shutil.copyfile(empty_database, root / "mlflow.db")
    assert list_versions(root) == []
    assert publish_to(root, predictor).created
    shutil.rmtree(root / "mlruns")
    assert publish_to(root, predictor) == Version(NAME, 2, True, ("champion",), ())
    (tensors,) = (root / "mlruns").rglob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    assert publish_to(root, predictor) == Version(NAME, 3, True, ("champion",), ())


def test_a_damaged_predictor_is_not_registered(tmp_path, predictor):
    damaged = tmp_path / "predictor"
    shutil.copytree(predictor, damaged)
    (damaged / "predictor.safetensors").write_bytes(b"garbage")
    with pytest.raises(InvalidInput, match=r"predictor\.safetensors"):
        publish_to(tmp_path, damaged)
    assert [path.name for path in tmp_path.iterdir()] == ["predictor"]
    assert list_versions(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["predictor"]


def test_names_are_checked_before_they_reach_the_database(root):
    with pytest.raises(InvalidInput, match="not a name of a registered model"):
        list_versions(root, "x' or name like '%")


# --- as others meet it -------------------------------------------------------------------------


def python(code: str, root: Path, *arguments: str) -> subprocess.Popen[str]:
    """A plain Python shell in the project's root, pickle forbidden, nothing of MLflow set."""
    environment = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


LOAD = """
import mlflow, numpy
model = mlflow.pyfunc.load_model("models:/modelpred-iris-logistic@champion")
weights = numpy.load("weights.npy")
numpy.save("predicted.npy", model.predict(weights))
numpy.save("refined.npy", model.predict(weights, params={"refine": 1}))
for wrong in (weights[:, :20], weights.astype("uint8"), -weights, weights * numpy.nan):
    try:
        model.predict(wrong)
    except Exception as error:
        print(str(error).splitlines()[-1])
"""


def test_a_plain_shell_loads_the_champion_and_gets_what_the_predictor_says(
    root, predictor, weights
):
    publish_to(root, predictor)
    np.save(root / "weights.npy", weights.numpy())
    with python(LOAD, root) as shell:
        out, err = shell.communicate(timeout=120)
    assert shell.returncode == 0, err
    expected = read_predictor(predictor)
    # float32 network, other thread counts: rounding of single precision.
    for name, answer in (
        ("predicted", expected(weights)),
        ("refined", expected.predict(weights, refine=1)),
    ):
        np.testing.assert_allclose(np.load(root / f"{name}.npy"), answer, rtol=1e-5, atol=1e-6)
    width, kind, negative, not_finite = out.splitlines()
    assert "Shape of input (40, 20) does not match expected shape (-1, 30)" in width
    assert "dtype of input uint8 does not match expected dtype float64" in kind
    assert "weights must be finite and not negative" in negative
    assert "weights must be finite and not negative" in not_finite


PUBLISH = """
import sys
from pathlib import Path
from tests_registry import GATES, GOOD, LINEAGE
from modelpred.registry import publish
assert "mlflow" not in sys.modules, "whoever only imports the registry should not wait for mlflow"
print(publish(Path(sys.argv[1]), dataset_name="iris", metrics=GOOD, lineage=LINEAGE, gates=GATES,
              root=Path()).created)
"""


def test_two_processes_that_publish_at_once_make_one_version(tmp_path, predictor):
    # No database yet: they also race for making it.
    (tmp_path / "tests_registry.py").write_text(
        "from modelpred.registry import GatesConfig, Lineage\n"
        f"GATES = GatesConfig(**{GATES.model_dump()!r})\n"
        f"GOOD = {GOOD!r}\n"
        f"LINEAGE = Lineage(**{LINEAGE.model_dump()!r})\n"
    )
    shells = [python(PUBLISH, tmp_path, str(predictor)) for _ in range(2)]
    told = [shell.communicate(timeout=300) for shell in shells]
    assert sorted(out.strip() for out, _ in told) == ["False", "True"], told
    (record,) = list_versions(tmp_path)
    assert record.aliases == ("champion",)

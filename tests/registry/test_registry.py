"""One version per predictor, whatever happens in between; it loads without pickle and answers as the predictor does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from modelpred import registry
from modelpred.cli import app
from modelpred.dataset import DatasetConfig, prepare
from modelpred.errors import InvalidInput
from modelpred.predictor import (
    PredictorConfig,
    fit_predictor,
    predictor_fingerprint,
    read_predictor,
    write_predictor,
)
from modelpred.registry import (
    Calibration,
    Evidence,
    Lineage,
    Version,
    judge,
    list_versions,
    promote,
    publish,
    rebuild,
    registered_name,
    rollback,
    show_version,
    tracking_uri,
)
from modelpred.sealed import seal
from modelpred.subsets import draw
from modelpred.targets import dataset_points, target_model, train_targets
from modelpred.targets.bank import Bank
from tests.registry.evidence import GATES, GOOD, POOR

NAME = "modelpred-iris-logistic"
LINEAGE = Lineage(
    git_commit="0123abc",
    dvc={"artifacts/targets": "f00f00f00.dir"},
    params={"dataset": {"source": "iris"}, "targets": {"C": 1.0}},
    dataset_fingerprint="d" * 64,
)


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    return draw("uniform", points=30, count=40, generator=np.random.default_rng(0)).double()


def fit(weights: torch.Tensor, folder: Path, *, seed: int) -> Path:
    dataset = prepare(DatasetConfig(source="iris", points=30, test=20))
    model = target_model("logistic", C=1.0)
    points = dataset_points(dataset)
    trained = train_targets(model, dataset.features, dataset.labels, weights, classes=2)
    config = PredictorConfig(epochs=1, width=16, seed=seed)
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


def publish_to(root: Path, folder: Path, *, metrics=GOOD, gates=GATES, **further) -> Version:
    return publish(
        folder,
        dataset_name="iris",
        evidence=Evidence(metrics, further.pop("calibration", None)),
        lineage=further.pop("lineage", LINEAGE),
        gates=gates,
        root=root,
        **further,
    )


def test_names_hold_only_what_the_registry_takes():
    assert registered_name("spam", "logistic") == "modelpred-spam-logistic"
    assert registered_name("../my data:v2/x", "mlp") == "modelpred-..-my-data-v2-x-mlp"


def test_the_commands_of_the_registry_run_as_documented(root, predictor, other_predictor):
    publish_to(root, predictor)
    publish_to(root, other_predictor)

    def said(*words):
        done = CliRunner().invoke(app, ["registry", *words, "--project", str(root)])
        assert done.exit_code == 0, done.output
        return done.output

    assert said("list").count(NAME) == 2
    assert NAME in said("list", "--made-of", "f00f00f")
    assert NAME in said("show", NAME)
    assert "champion" in said("promote", NAME, "1")
    assert "champion" in said("promote", NAME, "2")
    assert "1" in said("rollback", NAME)
    assert "holds every version already" in said("rebuild")


@pytest.mark.e2e
def test_the_command_serves_the_champion(root, predictor, weights):
    publish_to(root, predictor)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = ["serve", NAME, "--project", str(root), "--port", port]
    with subprocess.Popen(
        [sys.executable, "-m", "modelpred.cli", *command], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:  # fmt: skip
        try:
            line = server.stdout.readline()
            assert line.startswith(f"Serving {NAME} (champion) at http://127.0.0.1:{port}/")
            given = {"inputs": weights[:2].tolist()}
            with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
                said = client.post(f"http://127.0.0.1:{port}/invocations", json=given, timeout=60)
            assert said.status_code == 200, said.text
            assert len(said.json()["predictions"]) == 2
        finally:
            server.kill()


# --- publishing --------------------------------------------------------------------------------


def test_publishing_twice_makes_one_version_with_lineage_and_metrics(root, predictor):
    assert publish_to(root, predictor) == Version(NAME, 1, True, ("champion",), ())
    assert publish_to(root, predictor) == Version(NAME, 1, False, ("champion",), ())
    (record,) = list_versions(root)
    assert record == show_version(root, NAME) == show_version(root, NAME, 1)
    assert record.fingerprint == predictor_fingerprint(predictor)
    assert record.tags["git_commit"] == "0123abc"
    assert record.tags["dvc.artifacts/targets"] == "f00f00f00.dir"
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
    assert first.reasons == judge(Evidence(POOR), GATES)[1]
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
    assert publish_to(root, predictor) == Version(NAME, 1, False, ("champion",), ())
    shutil.rmtree(root / "mlruns")
    assert publish_to(root, predictor) == Version(NAME, 2, True, ("champion",), ())
    (tensors,) = (root / "mlruns").rglob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    assert publish_to(root, predictor) == Version(NAME, 3, True, ("champion",), ())


def test_a_champion_is_rolled_back_and_stays_so_until_somebody_promotes(
    root, predictor, other_predictor
):
    publish_to(root, predictor)
    with pytest.raises(InvalidInput, match="no champion before version 1"):
        rollback(root, NAME)
    publish_to(root, other_predictor)

    present, former = rollback(root, NAME)
    assert (present.version, present.aliases) == (2, ())
    assert (former.version, former.aliases) == (1, ("champion",))
    assert publish_to(root, other_predictor).aliases == ()  # the nightly run changes nothing
    assert promote(root, NAME, 2).aliases == ("champion",)
    assert rollback(root, NAME)[1].version == 1


def test_a_challenger_becomes_champion_on_new_evidence(root, predictor):
    asked = GATES.model_copy(update={"calibration": 0.05})
    first = publish_to(root, predictor, gates=asked)
    assert first.aliases == ("challenger",)
    assert first.reasons[0].startswith("the calibration study has not run for this predictor")
    measured = publish_to(
        root, predictor, gates=asked, calibration=Calibration(None, "no probabilities")
    )
    assert measured == Version(NAME, 1, False, ("champion",), ())


def test_a_worse_version_stays_challenger_beside_the_champion_on_the_same_subsets(
    root, predictor, other_predictor, weights
):
    """The second predictor is one whose anchors have lost their scale."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    asked = GATES.model_copy(update={"champion": True})
    bank = trained_bank(weights)
    publish_to(root, predictor, gates=asked, held_out=bank)
    worse = root / "worse"
    shutil.copytree(other_predictor, worse)
    tensors = load_file(worse / "predictor.safetensors")
    for name, tensor in tensors.items():
        if name.startswith("anchors.") and tensor.is_floating_point():
            tensors[name] = tensor * 2
    save_file(tensors, worse / "predictor.safetensors")
    seal(worse)

    second = publish_to(root, worse, gates=asked, held_out=bank)

    assert second.aliases == ("challenger",)
    (reason,) = second.reasons
    assert "higher than that of champion version 1" in reason
    assert "uniform +" in show_version(root, NAME, 2).tags["gates_champion"]


def trained_bank(weights: torch.Tensor) -> Bank:
    dataset = prepare(DatasetConfig(source="iris", points=30, test=20))
    model = target_model("logistic", C=1.0)
    trained = train_targets(model, dataset.features, dataset.labels, weights, classes=2)
    count = len(weights)
    return Bank(
        ids=tuple(map(str, range(count))),
        roles=("test",) * count,
        designs=("uniform",) * count,
        weights=weights,
        parameters=trained.parameters,
        objective=trained.objective,
        gradient_norm=trained.gradient_norm,
        converged=trained.converged,
        degenerate=trained.degenerate,
    )


def test_a_lost_database_is_rebuilt_with_every_version_and_alias_also_elsewhere(
    root, predictor, other_predictor, tmp_path_factory
):
    publish_to(root, predictor)
    publish_to(root, other_predictor)
    before = list_versions(root)
    moved = tmp_path_factory.mktemp("moved") / "project"
    moved.mkdir()
    (root / "mlruns").replace(moved / "mlruns")
    (root / "mlflow.db").unlink()

    assert rebuild(moved) == [f"{NAME} version {number} registered again" for number in (1, 2)]

    def told(records):
        return [(r.version, r.aliases, r.fingerprint, r.tags, r.metrics, r.params) for r in records]

    assert told(list_versions(moved)) == told(before)
    assert all(str(moved) in record.source for record in list_versions(moved))
    assert rollback(moved, NAME)[1].version == 1
    assert rebuild(moved) == [f"{moved / 'mlflow.db'} holds every version already"]


def test_versions_are_found_by_what_they_are_made_of(root, predictor):
    publish_to(root, predictor, lineage=LINEAGE.model_copy(update={"git_commit": "0123abc" * 5}))
    for known in ("0123abc", "0123abc0123", "f00f00f", "d" * 64):
        assert [r.version for r in list_versions(root, made_of=known)] == [1]
    assert list_versions(root, made_of="fffffff") == []
    with pytest.raises(InvalidInput, match="expected a commit or a hash"):
        list_versions(root, made_of="%")


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


@pytest.mark.e2e
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
    assert "expected finite and not negative ones" in negative
    assert "expected finite and not negative ones" in not_finite


PUBLISH = """
import sys
from pathlib import Path
from tests_registry import GATES, GOOD, LINEAGE
from modelpred.registry import Evidence, publish
assert "mlflow" not in sys.modules, "whoever only imports the registry should not wait for mlflow"
print(publish(Path(sys.argv[1]), dataset_name="iris", evidence=Evidence(GOOD), lineage=LINEAGE,
              gates=GATES, root=Path()).created)
"""


@pytest.mark.e2e
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


LISTING = """
import sys
from pathlib import Path
from typer.testing import CliRunner
from modelpred.registry_commands import registry_app
from modelpred.registry import list_versions
done = CliRunner().invoke(registry_app, ["list", "--project", sys.argv[1]])
print(done.exit_code, sorted({"torch", "modelpred.predictor", "modelpred.metrics"} & set(sys.modules)))
"""


@pytest.mark.parametrize("registered", [False, True])
def test_listing_imports_nothing_that_only_judging_or_answering_needs(
    tmp_path, empty_database, registered
):
    if registered:
        shutil.copy(empty_database, tmp_path / "mlflow.db")
    out, error = python(LISTING, tmp_path, str(tmp_path)).communicate(timeout=120)
    assert out.strip() == "0 []", error


def test_every_name_of_the_registry_is_found_where_it_is_said_to_be():
    for name in registry.__all__:
        assert getattr(registry, name) is not None
    assert set(registry.__all__) <= set(dir(registry))
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = registry.missing

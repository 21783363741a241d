"""The registered version behind MLflow's scoring server: answers, and a reason for whatever is no question."""

import asyncio
import json
import os
from functools import partial

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.dataset import DatasetConfig, prepare
from modelpred.errors import InvalidInput
from modelpred.predictor import PredictorConfig, fit_predictor, read_predictor, write_predictor
from modelpred.registry import Evidence, GatesConfig, Lineage, publish, tracking_uri
from modelpred.subsets import draw
from modelpred.targets import dataset_points, dataset_test_points, target_model, train_targets

GATES = GatesConfig(parameter_error=None, beats=(), calibration=None, champion=False)
NAME = "modelpred-iris-logistic"
TOO_MANY = json.dumps({"inputs": [[1] * 30] * 34_000}, separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The server's application, the predictor and its row names."""
    root = tmp_path_factory.mktemp("served")
    dataset = prepare(DatasetConfig(source="iris", points=30, test=20))
    model = target_model("logistic", C=1.0)
    weights = draw("uniform", points=30, count=40, generator=np.random.default_rng(0)).double()
    trained = train_targets(model, dataset.features, dataset.labels, weights, classes=2)
    predictor = fit_predictor(
        PredictorConfig(epochs=1, width=16),
        model,
        dataset_points(dataset),
        weights,
        trained.parameters,
        row_ids=dataset.row_ids,
    )
    write_predictor(predictor, root / "predictor")
    publish(
        root / "predictor",
        dataset_name="iris",
        evidence=Evidence(
            {
                "predictor": {
                    "uniform": {"parameter_error_high": 0.1, "subsets": 50.0, "left_out": 0.0}
                }
            }
        ),
        lineage=Lineage(dataset_fingerprint=dataset.fingerprint),
        gates=GATES,
        root=root,
        test_points=dataset_test_points(dataset),
    )
    # Imported by publishing already, which keeps it quiet; only these tests pay for it.
    import mlflow  # noqa: PLC0415
    from mlflow.pyfunc import scoring_server  # noqa: PLC0415

    before, known = dict(os.environ), mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_uri(root))
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    [registered] = root.glob("mlruns/**/predictor.safetensors")
    yield (
        scoring_server.init(loaded), read_predictor(root / "predictor"), dataset.row_ids,
        registered.parent,
    )  # fmt: skip
    mlflow.set_tracking_uri(known)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def files(served):
    """The predictor's files in the registry, and what loads them as a user does."""
    import mlflow  # noqa: PLC0415

    return served[3], partial(mlflow.pyfunc.load_model, f"models:/{NAME}@champion")


def ask(application, body) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            return await client.post(
                "/invocations", content=content, headers={"Content-Type": "application/json"}
            )

    return asyncio.run(post())


def test_weights_give_parameters_and_refine_is_a_param(served):
    client, predictor, *_ = served
    weights = torch.ones(2, 30, dtype=torch.float64)
    weights[1, :7] = 0
    body = {"inputs": weights.tolist()}
    plain = ask(client, body)
    refined = ask(client, body | {"params": {"refine": 1}})
    early = ask(client, body | {"params": {"stages": 0}})
    codes = {answer.status_code for answer in (plain, refined, early)}
    assert codes == {200}, plain.text + refined.text + early.text
    np.testing.assert_allclose(
        early.json()["predictions"], predictor.predict(weights, stages=0), rtol=1e-5, atol=1e-6
    )
    # Single precision inside, on other thread counts.
    np.testing.assert_allclose(
        plain.json()["predictions"], predictor.predict(weights), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        refined.json()["predictions"], predictor.predict(weights, refine=1), rtol=1e-5, atol=1e-6
    )


def test_lists_of_rows_give_parameters_loss_and_certificate(served):
    client, predictor, rows, _ = served
    left_out = [list(rows[:2]), [rows[5]]]
    body = {"inputs": [[1] * 30], "params": {"without": {"rows": left_out}, "refine": 1}}
    answer = ask(client, body)
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["predictions"]
    weights = torch.ones(1, 30, dtype=torch.float64)
    weights[0, 5] = 0
    np.testing.assert_allclose(
        second["parameters"], predictor.predict(weights, refine=1)[0], rtol=1e-5, atol=1e-6
    )
    assert 0 < first["loss"] < 1
    assert 0 < first["certificate"] < 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"inputs": [[1] * 20]}, r"does not match expected shape (-1, 30)"),
        ({"inputs": [["a"] * 30]}, "could not convert string to float"),
        (b'{"inputs": [[' + b",".join([b"NaN"] * 30) + b"]]}", "finite and not negative"),
        ({"inputs": [[-1] * 30]}, "finite and not negative"),
        (TOO_MANY, "34000 subsets of 30 rows are more than one request may hold"),
        (b"x" * 10_000_000, "Ensure that input is a valid JSON formatted string"),
        ({"inputs": [[1] * 30], "params": {"refine": 1e9}}, "refine is 1e+09; at most 20"),
        ({"inputs": [[1] * 30], "params": {"refine": -1}}, "expected 0 or more"),
        ({"inputs": [[1] * 30], "params": {"stages": 99}}, "this predictor has 0 to"),
        (
            {"inputs": [[1] * 30], "params": {"without": {"rows": [["no such", "../../etc"]]}}},
            "unknown rows ['no such', '../../etc']",
        ),
        ({"inputs": [[1] * 30], "params": {"without": {"rows": [7]}}}, "without"),
        ({"inputs": [[1] * 30], "params": {"without": "7"}}, "without"),
        (b"", "Ensure that input is a valid JSON formatted string"),
        ({}, "exactly one of the input fields"),
    ],
    ids=[
        *(
            "width",
            "strings",
            "NaN",
            "negative",
            "too many",
            "10 MB of garbage",
            "endless refinement",
        ),
        *(
            "negative refinement",
            "more stages than there are",
            "unknown rows",
            "a row for a list",
            "text for rows",
            "empty",
            "{}",
        ),
    ],
)
def test_what_is_no_question_is_a_4xx_with_a_reason(served, body, reason):
    answer = ask(served[0], body)
    assert 400 <= answer.status_code < 500, answer.text[:2000]
    assert reason in answer.text, answer.text[:500]


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_flipped_bit_of_a_registered_file_is_refused_when_mlflow_loads_it(files, data):
    """Whatever tensor it is in: such files are valid, and their answers only a little wrong."""
    folder, load = files
    path = folder / data.draw(st.sampled_from(sorted(each.name for each in folder.iterdir())))
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 2))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        with pytest.raises(InvalidInput) as refused:
            load()
        assert "\n" not in str(refused.value)
    finally:
        path.write_bytes(whole)
    load()

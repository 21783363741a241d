"""Requests per second and latency of a registered predictor behind `modelpred serve`, or behind MLflow's server.

    python -m tests.benchmarks.serving               the table, into RESULTS.md's section (about 2 min)
    python -m tests.benchmarks.serving --no-write    prints it only
    python -m tests.benchmarks.serving --mlflow      MLflow's server instead, to compare; prints it only

A predictor of 300 spam rows (1,000 targets, 5 epochs: its answers' time is that of a full fit) is published into a
temporary registry and served on the loopback, clients and server on the same machine. Every client keeps its
connection and asks again as soon as it has the answer; a level ends after so many requests or seconds, whichever is
first. Every answer is checked to be a 200. Latencies are the clients'.
"""

import argparse
import http.client
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modelpred.dataset import DatasetConfig, prepare
from modelpred.predictor import PredictorConfig, fit_predictor, write_predictor
from modelpred.registry import Evidence, GatesConfig, Lineage, publish, tracking_uri
from modelpred.subsets import draw
from modelpred.targets import dataset_points, dataset_test_points, target_model, train_targets
from tests.benchmarks.results import write_section

SECTION = "## Serving"
CLIENTS = (1, 8, 32)
MOST_REQUESTS = 200
MOST_SECONDS = 5.0
WARMING_REQUESTS = 5
START_SECONDS = 120.0
GATES = GatesConfig(parameter_error=None, beats=(), calibration=None, champion=False)
HELD_OUT = {"predictor": {"uniform": {"parameter_error_high": 0.0}}}


@dataclass(frozen=True)
class Level:
    """What one number of clients saw."""

    clients: int
    seconds: float
    latencies: list[float]

    def cells(self) -> str:
        """The cells of a row of the table."""
        middle, high = 1e3 * np.percentile(self.latencies, [50, 95])
        rate = len(self.latencies) / self.seconds
        return f"{self.clients} | {len(self.latencies)} | {rate:.0f} | {middle:.1f} | {high:.1f}"


def published(root: Path) -> tuple[str, list[str]]:
    """The name of a champion registered under `root`, and its rows' names."""
    dataset = prepare(DatasetConfig(source="spam"))
    model = target_model("logistic", C=1.0)
    points = dataset_points(dataset)
    generator = np.random.default_rng(0)
    weights = draw("uniform", points=300, count=1000, generator=generator).double()
    trained = train_targets(model, dataset.features, dataset.labels, weights, classes=2)
    fitted = fit_predictor(
        PredictorConfig(epochs=5), model, points, weights, trained.parameters,
        row_ids=dataset.row_ids,
    )  # fmt: skip
    write_predictor(fitted, root / "predictor")
    version = publish(
        root / "predictor",
        dataset_name="spam",
        evidence=Evidence(HELD_OUT),
        lineage=Lineage(dataset_fingerprint=dataset.fingerprint),
        gates=GATES,
        root=root,
        test_points=dataset_test_points(dataset),
    )
    return version.name, list(dataset.row_ids)


def serve(root: Path, name: str, *, mlflow: bool) -> tuple[subprocess.Popen[bytes], int]:
    """The server's process and port, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    theirs = [
        *(str(Path(sys.executable).with_name("mlflow")), "models", "serve"),
        *("--model-uri", f"models:/{name}@champion", "--env-manager", "local"),
        *("--host", "127.0.0.1"),
    ]
    ours = [sys.executable, "-m", "modelpred.cli", "serve", name, "--project", str(root)]
    command = [*(theirs if mlflow else ours), "--port", str(port)]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking_uri(root),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return process, port
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {(root / 'server.log').read_text()[-2000:]}")


def load(port: int, body: bytes, *, clients: int, requests: int = MOST_REQUESTS) -> Level:
    """Asks with so many clients at once."""
    left = [requests]
    latencies: list[float] = []
    lock = threading.Lock()
    end = time.perf_counter() + MOST_SECONDS

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                left[0] -= 1
                if left[0] < 0 or time.perf_counter() > end:
                    return
            began = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            took = time.perf_counter() - began
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {content[:300]!r}")
            with lock:
                latencies.append(took)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Level(clients, time.perf_counter() - began, latencies)


def refused(port: int) -> str:
    """How a body of 10 MB is answered: a line of the section."""
    body = json.dumps({"inputs": [[1] * 300] * 11_200}).encode()
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    reason = json.loads(answer.read())["message"].split("Error: ")[-1].strip()
    took = time.perf_counter() - began
    return (
        f'A body of {len(body) / 1e6:.0f} MB gets a {answer.status} after {took:.1f} s: "{reason}".'
    )


def questions(row_ids: list[str]) -> dict[str, bytes]:
    """The bodies that are sent, by what they ask."""
    half = draw("uniform", points=300, count=100, generator=np.random.default_rng(1)).tolist()
    everything = [[1] * 300]
    rows = [[row] for row in row_ids[:100]]
    asked = {
        "1 subset": {"inputs": half[:1]},
        "100 subsets": {"inputs": half},
        "1 row left out, refine 1": {
            "inputs": everything,
            "params": {"without": {"rows": rows[:1]}, "refine": 1},
        },
        "100 rows left out, one by one": {
            "inputs": everything,
            "params": {"without": {"rows": rows}},
        },
    }
    return {name: json.dumps(body).encode() for name, body in asked.items()}


def section(*, mlflow: bool) -> str:
    """Measures; the text of the section."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        name, row_ids = published(Path(place))
        process, port = serve(Path(place), name, mlflow=mlflow)
        try:
            for asked, body in questions(row_ids).items():
                load(port, body, clients=1, requests=WARMING_REQUESTS)
                lines += [
                    f"| {asked} | {load(port, body, clients=clients).cells()} |"
                    for clients in CLIENTS
                ]
            large = refused(port)
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}) shared by server and clients, torch "
        f"{torch.__version__}, Python {platform.python_version()}, load average at the end "
        f"{os.getloadavg()[0]:.1f}."
    )
    served = "mlflow models serve" if mlflow else "modelpred serve"
    head = [
        f"`python -m tests.benchmarks.serving`: `{served}` on the loopback, spam 300 x 57,",
        f"logistic. {machine}",
        f"A level ends after {MOST_REQUESTS} requests or {MOST_SECONDS:.0f} s; all answers were 200.",
        large,
    ]
    columns = "| question | clients | requests | requests a second | median ms | 95% ms |"
    return "\n".join([SECTION, "", *head, "", columns, "|---|---|---|---|---|---|", *lines, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--mlflow", action="store_true")
    asked = parser.parse_args()
    measured = section(mlflow=asked.mlflow)
    print(measured)
    if not (asked.no_write or asked.mlflow):
        write_section(measured)

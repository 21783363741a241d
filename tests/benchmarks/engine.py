"""The engine: time to the first answers, and queries after which prediction pays.

First answers: a new process imports ModelPred, fits 300 rows of spam and asks for suspects or values, in
wall and in processor seconds. Break-even: the automatic preparation (anchors, targets, fit) and the answers
of 2,000 subsets, against exact retraining of the same subsets with the C kernels, in processor seconds of
one thread. `break-even` is preparation / (retraining - answer); there is none where an answer costs more.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch

from modelpred import ModelPred
from modelpred.engine.costs import timed_subsets
from modelpred.predictor import break_even_queries
from tests.benchmarks.figures import Benchmark, Figure, median, number

ANSWERED = 2000
FEATURES = 40
FIRST = """
import time
from modelpred import ModelPred
from modelpred.dataset import DatasetConfig, prepare
data = prepare(DatasetConfig(source="spam"))
rows, labels = data.features.numpy(), data.labels.numpy()
mp = ModelPred("logistic", progress=False).fit(rows, labels)
{question}
print(time.process_time())
"""
QUESTIONS = {
    "suspects": "mp.suspects()",
    "values": "mp.values(data.test_features.numpy(), data.test_labels.numpy())",
}


def made(rows: int, *, classes: int, features: int = FEATURES) -> tuple[np.ndarray, np.ndarray]:
    """Rows of independent normal features, with labels drawn from a linear model."""
    draws = np.random.default_rng(0)
    cells = draws.normal(size=(rows, features))
    if classes == 2:
        strength = 2 * draws.normal(size=features) / features**0.5
        chance = 1 / (1 + np.exp(-cells @ strength))
        return cells, (draws.uniform(size=rows) < chance).astype(int)
    scores = cells @ draws.normal(size=(features, classes)) / 2
    return cells, (scores + draws.gumbel(size=scores.shape)).argmax(axis=1)


def first_answer(question: str, *, repeats: int) -> Iterable[Figure]:
    """Wall and processor seconds from a new process to a table."""
    walls, processors = list[float](), list[float]()
    for _ in range(repeats):
        began = time.perf_counter()
        code = FIRST.format(question=QUESTIONS[question])
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        walls.append(time.perf_counter() - began)
        processors.append(float(done.stdout))
    yield median(f"import to {question}, spam 300, wall", walls)
    yield median(f"import to {question}, spam 300, processor", processors)


def processor_seconds(call: Callable[[], object]) -> float:
    """Processor seconds of a call, after a first one."""
    call()
    began = time.process_time()
    call()
    return time.process_time() - began


def break_even(name: str, family: str, rows: int, *, classes: int) -> Iterable[Figure]:
    """Cost of preparation and answers of a pool, and the error on held-out subsets."""
    mp = ModelPred(family, progress=False).fit(*made(rows, classes=classes))
    began = time.process_time()
    predictor = mp.predictor
    preparation = time.process_time() - began
    weights = timed_subsets(rows, ANSWERED)
    answer = processor_seconds(lambda: predictor(weights)) / ANSWERED
    exact = processor_seconds(lambda: mp.retrain(weights)) / ANSWERED
    queries = break_even_queries(preparation=preparation, retraining=exact, predictor=answer)
    best = mp.learning["error"].to_numpy().min()
    for what, value, unit in (
        ("preparation", preparation, "s"),
        ("retraining", 1e6 * exact, "us"),
        ("answer", 1e6 * answer, "us"),
        ("error", best, "relative error"),
        ("targets", mp.learning["targets"][-1], "subsets"),
        ("break-even", queries, "queries"),
    ):
        if value is None:  # an answer costs more than retraining: prediction never pays
            continue
        yield number(f"{name}, {what}", value, unit)


def measure(quick: bool) -> Iterable[Figure]:
    """First answers, then the break-even of five pools; a quick run has one of each."""
    torch.set_num_threads(1)
    for question in ["suspects"] if quick else QUESTIONS:
        yield from first_answer(question, repeats=1 if quick else 3)
    pools = [(300, "logistic", 2), (1000, "logistic", 2), (3000, "logistic", 2)]
    pools += [(10_000, "logistic", 2), (1000, "softmax", 10), (3000, "softmax", 10)]
    for rows, family, classes in pools[:1] if quick else pools:
        yield from break_even(f"{family} {rows} x {FEATURES}", family, rows, classes=classes)


BENCHMARK = Benchmark("time to first answers, and queries after which prediction pays", 4, measure)

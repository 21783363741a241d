"""Any estimator trained on subsets of rows, and what it answers for known rows.

A subset takes each of its rows as often as its weight says: a row of weight 2 is passed to training twice, and
a row of weight 0 not at all. Weights that are no whole numbers become sample weights.

| kind          | from                | answers of a row                                         |
|---------------|---------------------|----------------------------------------------------------|
| probabilities | `predict_proba`     | log odds, or the log probability of each of many classes |
| scores        | `decision_function` | the score, or one for each of several classes            |
| classes       | `predict`           | +1 for the predicted class, else -1                      |
| numbers       | `predict`           | the number                                               |

A subset without two classes trains no classifier: its model gives the shares of the classes, with half
a row added to each, and that of no rows the number 0. A subset whose training raises an error has no
model: its answers are nan.
"""

import threading
import warnings
from collections import OrderedDict
from copy import deepcopy
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelpred.errors import InvalidInput
from modelpred.estimators.known_rows import Table, take_rows
from modelpred.estimators.mapping import Estimator, unfitted

Answers: TypeAlias = NDArray[np.float64]  # [rows, outputs]
Kind = Literal["probabilities", "scores", "classes", "numbers"]
LEAST_PROBABILITY = 1e-15
IN_PROCESS_SECONDS = 2.0  # of training, before other processes are worth starting
IDLE_SECONDS = 60  # after which an idle process ends
FITTED = 4  # trained estimators that are kept

_in_process = threading.Lock()  # filters of warnings belong to the process


@dataclass(frozen=True)
class Job:
    """All that training on subsets needs; it is sent to each process once.

    Attributes:
        estimator: unfitted.
        kind: which outputs are used.
        rows: the training rows.
        labels: [rows], as the caller names them.
        classes: all classes, sorted; empty for numbers.
        factors: sample weight of each row; None is 1 for all.
        known: the rows to answer for.
    """

    estimator: Estimator
    kind: Kind
    rows: Table
    labels: NDArray[Any]
    classes: NDArray[Any]
    factors: NDArray[np.float64] | None
    known: Table

    @property
    def outputs(self) -> int:
        """Answers for a row."""
        return 1 if self.kind == "numbers" or len(self.classes) == 2 else len(self.classes)

    def fitted(self, weights: NDArray[np.float64]) -> Estimator | None:
        """The estimator trained on a subset; None where it has no two classes, or no rows."""
        counts = np.rint(weights)
        whole = bool(np.allclose(weights, counts, rtol=0, atol=1e-9))
        rows = np.repeat(np.arange(len(weights)), counts.astype(np.int64) if whole else weights > 0)
        labels = self.labels[rows]
        if not len(rows) or (self.kind != "numbers" and len(np.unique(labels)) < 2):
            return None
        factors = None if self.factors is None else self.factors[rows]
        if not whole:
            factors = weights[rows] if factors is None else factors * weights[rows]
        estimator = _ready(self.estimator, rows=len(rows))
        options = {} if factors is None else {"sample_weight": factors}
        return estimator.fit(take_rows(self.rows, rows), labels, **options)

    def answers(self, estimator: Estimator | None, table: Table, shares: Answers) -> Answers:
        """What a trained estimator answers for each row of a table.

        Args:
            estimator: `fitted`.
            table: the rows.
            shares: total weight of each class, for a subset without a model.
        """
        count = table.shape[0]
        if estimator is None:
            return np.tile(self._constant(shares), (count, 1))
        if self.kind == "numbers":
            return np.asarray(estimator.predict(table), dtype=np.float64).reshape(count, 1)
        if self.kind == "classes":
            own = np.asarray(estimator.predict(table))[:, None] == self.classes
            return 2.0 * (own[:, 1:] if self.outputs == 1 else own) - 1
        places = np.searchsorted(self.classes, estimator.classes_)
        if self.kind == "probabilities":
            probabilities = np.zeros((count, len(self.classes)))
            probabilities[:, places] = estimator.predict_proba(table)
            return self._one_or_all(np.log(probabilities.clip(LEAST_PROBABILITY, 1)))
        scores = np.asarray(estimator.decision_function(table), dtype=np.float64)
        return self._placed(scores.reshape(count, -1), places)

    def _placed(self, scores: Answers, places: NDArray[np.int64]) -> Answers:
        """Scores in the columns of their classes; a class without a row has the lowest."""
        if self.outputs == 1:
            return scores
        if scores.shape[1] == 1:
            scores = np.concatenate([-scores, scores], axis=1)
        lowest = scores.min(axis=1, keepdims=True) - 1
        table = np.repeat(lowest, len(self.classes), axis=1)
        table[:, places] = scores
        return table

    def _constant(self, shares: Answers) -> Answers:
        if self.kind == "numbers":
            return np.zeros((1, 1))
        return self._one_or_all(np.log((shares + 0.5) / (shares + 0.5).sum())[None])

    def _one_or_all(self, logs: Answers) -> Answers:
        """Log odds of two classes; of more the logs themselves."""
        return logs[:, 1:] - logs[:, :1] if self.outputs == 1 else logs

    def shares(self, weights: NDArray[np.float64]) -> Answers:
        """Total weight of each class in a subset."""
        factors = weights if self.factors is None else weights * self.factors
        if not len(self.classes):
            return np.zeros(0)
        places = np.searchsorted(self.classes, self.labels)
        return np.bincount(places, factors, len(self.classes)).astype(np.float64)


@dataclass(frozen=True)
class Block:
    """Predictions [subsets, rows, outputs] of the models of some subsets; nan where training failed.

    Attributes:
        answers: for the known rows of the job.
        errors: what training raised, a line for each failed subset.
    """

    answers: NDArray[np.float64]
    errors: tuple[str, ...]


def trained_block(job: Job, weights: NDArray[np.float64]) -> Block:
    """Predictions of the models of subsets, [subsets, points], for the job's known rows."""
    found = np.full((len(weights), job.known.shape[0], job.outputs), np.nan)
    errors: list[str] = []
    for place, own in enumerate(weights):
        try:
            found[place] = job.answers(job.fitted(own), job.known, job.shares(own))
        except InvalidInput:
            raise
        except Exception as error:  # noqa: BLE001 - estimators raise anything; the row is recorded as failed
            found[place] = np.nan
            errors.append(one_line(error))
    return Block(found, tuple(errors))


def one_line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _ready(estimator: Estimator, *, rows: int) -> Estimator:
    """An unfitted copy that can be trained on so few rows, on one core.

    Of k nearest neighbours there are at most as many as rows.
    """
    if not hasattr(estimator, "get_params"):
        return deepcopy(estimator)
    copy = unfitted(estimator)
    given = copy.get_params()
    changed = {
        name: min(value, rows)
        for name, value in given.items()
        if name.rpartition("__")[2] == "n_neighbors" and isinstance(value, int)
    }
    changed |= {
        name: 1
        for name, value in given.items()
        if name.rpartition("__")[2] == "n_jobs" and value is not None
    }
    return copy.set_params(**changed) if changed else copy


class SubsetFits:
    """Trains a job's subsets, in this process or in others, and remembers answers.

    The first two seconds of work are done in this process. What takes longer goes to other processes,
    as many as `processes`; several threads may ask at once, and each of them keeps one process busy.

    Args:
        job: what to train.
        processes: how many may work at once.
        memory: bytes of outputs that are kept, so that an interrupted study continues.
    """

    def __init__(self, job: Job, *, processes: int, memory: int) -> None:
        self.job = job
        self.processes = processes
        self._memory = memory
        self._kept: dict[bytes, NDArray[np.float64]] = {}
        self._fitted: OrderedDict[bytes, Estimator | None] = OrderedDict()
        self._seconds = 0.0
        self._pool: Any = None
        self._started: Any = None  # the first task, done once a process has started
        self._lock = threading.Lock()
        self.errors: list[str] = []

    def answers(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Answers [subsets, known rows, outputs] of the models of subsets, [subsets, points]."""
        weights = np.ascontiguousarray(weights)
        keys = [own.tobytes() for own in weights]
        found = [self._kept.get(key) for key in keys]
        missing = [place for place, answer in enumerate(found) if answer is None]
        while missing and not self._processes_ready():
            place = missing.pop(0)
            began = perf_counter()
            block = self._trained_here(weights[place : place + 1])
            self._seconds += perf_counter() - began
            found[place] = self._keep(keys[place], block, 0)
        if missing:
            block = self._trained_elsewhere(weights[missing])
            for row, place in enumerate(missing):
                found[place] = self._keep(keys[place], block, row)
        shape = (len(weights), self.job.known.shape[0], self.job.outputs)
        return np.array(found, dtype=np.float64).reshape(shape)

    def model(self, weights: NDArray[np.float64]) -> Estimator | None:
        """The estimator trained on a subset, [points]; None where it has no two classes.

        Raises:
            InvalidInput: training raises an error.
        """
        key = np.ascontiguousarray(weights).tobytes()
        with _in_process:
            if key not in self._fitted:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._fitted[key] = self._fit(weights)
            self._fitted.move_to_end(key)
            while len(self._fitted) > FITTED:
                self._fitted.popitem(last=False)
            return self._fitted[key]

    def answers_for(self, weights: NDArray[np.float64], table: Table) -> Answers:
        """Answers [rows, outputs] of the model of one subset for any rows."""
        model = self.model(weights)
        with _in_process, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.job.answers(model, table, self.job.shares(weights))

    def _fit(self, weights: NDArray[np.float64]) -> Estimator | None:
        name = type(self.job.estimator).__name__
        try:
            return self.job.fitted(weights)
        except Exception as error:
            raise InvalidInput(f"{name} cannot be trained: {one_line(error)}") from error

    def _processes_ready(self) -> bool:
        """Whether other processes can train; they are started once work has taken long enough."""
        if self.processes < 2 or self._seconds < IN_PROCESS_SECONDS:
            return False
        with self._lock:
            if self._pool is None:
                self._pool = _process_pool(self.job, self.processes)
                self._started = self._pool.submit(int)
        return self._started.done()

    def _trained_here(self, weights: NDArray[np.float64]) -> Block:
        with _in_process, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trained_block(self.job, weights)

    def _trained_elsewhere(self, weights: NDArray[np.float64]) -> Block:
        return self._pool.submit(_block_of_process, weights).result()

    def _keep(self, key: bytes, block: Block, row: int) -> NDArray[np.float64]:
        answer = block.answers[row]
        if row == 0:
            self.errors += block.errors
        if self._memory >= answer.nbytes + len(key) and bool(np.isfinite(answer).all()):
            self._memory -= answer.nbytes + len(key)
            self._kept[key] = answer
        return answer


@dataclass
class _Process:
    """What a process was given when it began."""

    job: Job | None = field(default=None)


_own = _Process()


def _receive(job: Job) -> None:
    warnings.simplefilter("ignore")
    _own.job = job


def _block_of_process(weights: NDArray[np.float64]) -> Block:
    assert _own.job is not None
    return trained_block(_own.job, weights)


def _process_pool(job: Job, processes: int) -> Any:  # noqa: ANN401 - joblib has no stubs
    """Processes with one thread each, which end when they are idle.

    joblib's are started, not forked, and scripts need no guard of their main module.
    """
    from joblib.externals.loky import ProcessPoolExecutor  # noqa: PLC0415 - for long work only

    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return ProcessPoolExecutor(
        processes, timeout=IDLE_SECONDS, initializer=_receive, initargs=(job,), env=one
    )

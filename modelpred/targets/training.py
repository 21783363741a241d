"""Training of target models on many subsets at once.

Subsets are trained in blocks whose size follows from bytes, so memory is bounded whatever their
number. Which subsets share a block changes no answer by more than rounding, and none at all where C
trains them (compiled/).

**Degenerate subsets** (a class missing, or no weight at all) are marked. Where their objective has
no minimiser they get the family's prior-only model, which is their definition, not a failure.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.memory import require_memory
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Array, Points, class_counts, points_of, tensor_of
from modelpred.targets.solving import Solution, Solver
from modelpred.targets.threads import keep_threads, thread_count, torch_threads
from modelpred.targets.weights import weights_of

# What a block passes over again and again should stay in a core's cache, and yet be enough rows for
# the products to run near the machine's peak; very many points bound the rows by memory alone.
CACHE_BYTES = 768 * 2**10
MEMORY_BYTES = 32 * 2**20
ACCELERATOR_BYTES = 256 * 2**20
FEWEST, MOST = 32, 4096


@dataclass(frozen=True)
class TrainedTargets:
    """A row per subset; arrays are of the kind (numpy or torch) that the features were.

    Attributes:
        parameters: [subsets, parameters]; float64, or float32 of a family that is trained in it.
        objective: the subset's own objective there.
        gradient_norm: largest absolute entry of its gradient there.
        converged: the row is the answer: ||theta - optimum|| <= tolerance ||optimum||, and so for
            the coefficients alone and for the coefficients times the lengths of their columns of
            features. The estimate includes rounding. Parameters next to zero are compared with a
            thousandth of what they would be if no terms of their gradient cancelled. Units of
            labels, and a factor moved from C to the weights, change nothing. For a family of fixed
            steps: the steps ended finite. A prior-only row is so by definition.
        degenerate: a class is missing from the subset, or all weights are zero.
        iterations: steps taken.
    """

    parameters: Any
    objective: Any
    gradient_norm: Any
    converged: Any
    degenerate: Any
    iterations: Any


def train_targets(
    model: TargetModel,
    features: Array,
    labels: Array,
    weights: Array,
    *,
    tolerance: float = 1e-6,
    start: Array | None = None,
    progress: Callable[[int, int], None] | None = None,
    classes: int | None = None,
    block: int | None = None,
    sample_weight: Array | None = None,
) -> TrainedTargets:
    """Trained parameters of every subset.

    Args:
        model: the family (`target_model`).
        features: [points, features], numpy or torch; results come back as the same kind.
        labels: [points] class indices, or numbers for a regression.
        weights: [subsets, points], finite and not negative, of any number type.
        tolerance: largest distance to the subset's optimum, relative to its parameters, that counts
            as converged (`TrainedTargets.converged`).
        start: parameters to start from, [parameters] or [subsets, parameters].
        progress: called with (subsets done, subsets in all) after each block.
        classes: number of classes, if labels may lack the highest.
        block: subsets trained at once; default: by bytes.
        sample_weight: [points], factor of each point's loss in every subset; default: 1.

    Raises:
        InvalidInput: weights, features, labels or start that do not fit.
    """
    as_numpy = isinstance(features, np.ndarray)
    known = 0 if model.regression else _classes(labels, classes)
    points = points_of(features, labels, known, sample_weight=sample_weight)
    size = model.parameter_count(points.features.shape[1], points.classes)
    table = weights_of(weights, points=len(points.features))
    require_training_memory(model, points, subsets=len(table))
    begin = None if start is None else _checked_start(start, len(table), size, points)
    if not tolerance > 0:
        raise InvalidInput(f"tolerance is {tolerance}; expected a positive number")
    if block is not None and block < 1:
        raise InvalidInput(f"block is {block}; expected a positive number of subsets")
    done: list[tuple[Solution, Tensor]] = []
    finished = 0
    with _threads_for(model, points) as threads:
        with torch.no_grad():
            solver = model.solver(replace(points, sample_weight=None))
            trainer = Trainer(model, points, solver, tolerance)
        order = _by_size(table)
        parts = order.split(block or _sizes(len(table), _block_size(model, points), threads))
        # Closed here, so that what it has set is back whatever happens to this loop.
        with closing(_in_order(trainer, table, begin, parts, threads)) as blocks:
            for solution, degenerate in blocks:
                done.append((solution, degenerate))
                finished += len(degenerate)
                if progress is not None:
                    progress(finished, len(table))
        # Still inside: the threads of torch's own pool spin for a while after each of its operations.
        places = order.argsort().to(points.features.device)
        return _joined(done, places, size, as_numpy=as_numpy)


def require_training_memory(model: TargetModel, points: Points, *, subsets: int) -> None:
    """Check that there is memory to train so many subsets at once.

    Raises:
        InvalidInput: there is less.
    """
    parameters = model.parameter_count(points.features.shape[1], points.classes)
    # Parameters as float64, by blocks, joined and in order, and what the smallest block passes over.
    needed = subsets * parameters * 24 + model.bytes_per_subset(points)
    require_memory(
        needed, what=f"{subsets:,} {model.name} models of {parameters:,} parameters each"
    )


@dataclass(frozen=True)
class Trainer:
    """One family on one pool of points.

    The solver takes weights that are multiplied with the sample weights of the points already.
    """

    model: TargetModel
    points: Points
    solver: Solver
    tolerance: float

    @torch.no_grad()
    def block(self, weights: Tensor, start: Tensor | None) -> tuple[Solution, Tensor]:
        """The block's solution, and which of its rows are degenerate."""
        weights = weights.to(self.points.features.device, torch.float64)
        counts = class_counts(weights, self.points)
        degenerate = (counts == 0).any(1)
        solved = ~self.model.without_optimum(counts)
        if bool(solved.all()):
            factors = self.points.weighted(weights)
            return self.solver(factors, start=start, tolerance=self.tolerance), degenerate
        parameters = self.model.prior(counts, self.points.features.shape[1])
        converged = torch.ones_like(solved)
        iterations = torch.zeros_like(solved, dtype=torch.int64)
        if bool(solved.any()):
            own = None if start is None else start[solved]
            factors = self.points.weighted(weights[solved])
            solution = self.solver(factors, start=own, tolerance=self.tolerance)
            parameters[solved] = solution.parameters
            converged[solved] = solution.converged
            iterations[solved] = solution.iterations
        gradient = self.model.gradient(parameters, weights, self.points)
        objective = self.model.objective(parameters, weights, self.points)
        norm = gradient.abs().amax(1)
        return Solution(parameters, norm, objective, iterations, converged), degenerate


@contextmanager
def _threads_for(model: TargetModel, points: Points) -> Generator[int]:
    """How many threads may train blocks; inside, torch splits only products worth splitting.

    A small product split between cores waits for the slower one, thousands of times a block: ten
    times slower than one thread when something else runs on the machine.
    """
    threads = thread_count()
    on_cpu = points.features.device.type == "cpu"
    small = on_cpu and model.bytes_per_subset(points) < CACHE_BYTES
    with torch_threads(1 if small else threads):
        yield threads if on_cpu else 1


def _by_size(table: Tensor) -> Tensor:
    """The order in which subsets are trained: those of many points first, like beside like.

    Subsets of about one size need about as many steps, and points that all of a block lack cost
    nothing; the long blocks first keep all cores busy to the end.
    """
    sizes = np.count_nonzero(
        (table != 0).numpy(force=True), axis=1
    )  # thrice as fast as torch's sum
    return torch.from_numpy(sizes).to(table.device).argsort(descending=True, stable=True)


def _in_order(
    trainer: Trainer, table: Tensor, start: Tensor | None, parts: Sequence[Tensor], threads: int
) -> Generator[tuple[Solution, Tensor]]:
    """The blocks of these rows, in order; one block a thread keeps each in its core's cache.

    This thread trains, too: as many others as there are cores would begin milliseconds late, on a
    core that this one is about to leave.
    """

    def train(rows: Tensor) -> tuple[Solution, Tensor]:
        return trainer.block(table[rows], None if start is None else start[rows.to(start.device)])

    if threads == 1 or len(parts) < 2:
        yield from (train(rows) for rows in parts if len(rows))
        return
    own: dict[int, tuple[Solution, Tensor]] = {}
    others = ThreadPoolExecutor(threads - 1, initializer=keep_threads, initargs=(1,))
    with torch_threads(1), others as pool:
        futures = [pool.submit(train, rows) for rows in parts]
        try:
            for place, future in enumerate(futures):
                while place not in own and not future.done():
                    # A block that is cancelled before another thread began it is this one's.
                    waiting = (k for k in range(place, len(parts)) if not futures[k].cancelled())
                    mine = next((k for k in waiting if futures[k].cancel()), None)
                    if mine is None:
                        break
                    own[mine] = train(parts[mine])
                yield own.pop(place) if place in own else future.result()
        finally:
            for future in futures:
                future.cancel()


def _block_size(model: TargetModel, points: Points) -> int:
    each = model.bytes_per_subset(points)
    if points.features.device.type != "cpu":
        return max(1, ACCELERATOR_BYTES // each)
    return int(np.clip(CACHE_BYTES // each, min(FEWEST, max(1, MEMORY_BYTES // each)), MOST))


def _sizes(subsets: int, most: int, threads: int) -> list[int]:
    """Subsets of each block, at most `most`, so that all threads end at about one time.

    Each block takes its share of half of what is left: how long a subset takes differs, and the
    short blocks at the end fill what the long ones leave.
    """
    if threads == 1:
        blocks = -(-subsets // most)
        return [len(part) for part in np.array_split(np.arange(subsets), max(1, blocks))]
    sizes: list[int] = []
    while (left := subsets - sum(sizes)) > 0:
        share = max(-(-left // (2 * threads)), FEWEST // 2, subsets // 64)
        sizes.append(min(share, most, left))
    return sizes


def _joined(
    done: list[tuple[Solution, Tensor]], places: Tensor, size: int, *, as_numpy: bool
) -> TrainedTargets:
    """All blocks' rows as one table, each row in its place."""
    empty = torch.zeros(0, dtype=torch.float64, device=places.device)
    flags = empty.bool()
    kind = done[0][0].parameters.dtype if done else empty.dtype
    none = Solution(empty.reshape(0, size).to(kind), empty, empty, empty.long(), flags)
    parts = [none, *(solution for solution, _ in done)]
    columns = {
        name: torch.cat([getattr(part, name) for part in parts])[places]
        for name in ("parameters", "objective", "gradient_norm", "converged", "iterations")
    }
    columns["degenerate"] = torch.cat([flags, *(degenerate for _, degenerate in done)])[places]
    if as_numpy:
        return TrainedTargets(**{name: column.numpy() for name, column in columns.items()})
    return TrainedTargets(**columns)


def _classes(labels: Array, classes: int | None) -> int:
    if classes is not None:
        return classes
    return max(2, int(labels.max()) + 1) if len(labels) else 2


def _checked_start(start: Array, subsets: int, size: int, points: Points) -> Tensor:
    begin = tensor_of(start).to(points.features.device, torch.float64)
    if begin.shape not in (torch.Size([size]), torch.Size([subsets, size])):
        raise InvalidInput(
            f"start has shape {list(begin.shape)}; expected [{size}] or [{subsets}, {size}]"
        )
    if not bool(torch.isfinite(begin).all()):
        raise InvalidInput("start has parameters that are not finite")
    return begin.expand(subsets, -1)

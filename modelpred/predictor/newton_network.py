"""Answers of a linear family by Newton directions: the first-order answer, then a few gradients.

    d_0 = the anchor's move (newton_path.py),   v_k = H_s^-1 grad F_w(theta_s + d_k)

Nothing has to be learned: d_{k+1} = d_k - v_k comes nearer with each gradient where the curvature of
the subset is about that of its level. Where it is not, the steps before help to choose the next one
(acceleration.py). With little regularisation (classes nearly separable), corrections fitted to some
hundred trained subsets may help more, in place of the acceleration. In the basis of
the path they are diagonal, one least-squares problem of five coefficients for each direction:

    move_0 = d_0 + t (a d_0 + b t d_0 + c + e t)
    move_k = -v_k + t (a v_k + b t v_k + f (d_k - d_{k-1}) + c + e t)

t = sum_i (w_i - s)^2 / sum_i w_i is how far the weights are from equal: the share of absent rows for a
subset, about one for a resample. So corrections vanish for subsets of nearly all rows, which need none.
The constants c and e are there because the optimum's mean over random subsets is not the optimum at
equal weights, but is moved by a second-order term.

Gradients go on from the corrected move_0, but the answer without a gradient is d_0 itself: on halves and
on deletions, designs that a fit need not know, it is nearer.
"""

import time
from collections.abc import Iterator
from copy import copy
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from modelpred.predictor.acceleration import Acceleration
from modelpred.predictor.anchors import ByLevel
from modelpred.predictor.network import BoundPoints, SetNetwork
from modelpred.predictor.newton_inverse import blockwise
from modelpred.predictor.newton_path import BoundNewtonPath, Level, NewtonPath
from modelpred.predictor.step_count import capped_errors
from modelpred.targets import Points, TargetModel

INPUTS = 5  # of a correction, for each direction
SLOWEST = 0.9  # ratio of two moves
UNDERRATED = 1.6  # errors are about so many times what the ratio of moves says (heads, all designs)
RIDGE = 1e-3  # share of the inputs' mean square


@final
class NewtonNetwork(SetNetwork):
    """The first-order answer and `steps` gradients, each with its correction."""

    learned_from = 0
    corrections: Tensor  # [steps + 1, inputs, directions]

    def __init__(self, anchors: NewtonPath, *, steps: int) -> None:
        super().__init__()
        self.anchors = anchors
        plain = torch.zeros(steps + 1, INPUTS, anchors.direction_count)
        self.register_buffer("corrections", plain)

    def with_corrections(self, corrections: Tensor) -> "NewtonNetwork":
        """The network with these corrections [steps + 1, inputs, parameters], on their device."""
        changed = NewtonNetwork(self.anchors, steps=len(corrections) - 1).to(corrections.device)
        changed.corrections.copy_(corrections)
        return changed

    @property
    def last_stage(self) -> int:
        """The number of gradients."""
        return len(self.corrections) - 1

    def bind(self, model: TargetModel, points: Points) -> BoundPoints:
        """The path on these points."""
        exact = points.to(dtype=torch.float64)
        anchors = self.anchors.bind(model, exact, torch.float32)
        return BoundPoints(model, points.to(dtype=torch.float32), anchors)

    def prepare(self, weights: Tensor, bound: BoundPoints) -> Tensor | None:
        """Return None: computing the starts costs no more than reading them."""
        del weights, bound

    def answer(self, weights: Tensor, bound: BoundPoints, *, stage: int) -> Tensor:
        """That of the stages, block after block."""
        groups, blocks = self._blocks(weights, bound)
        found: list[Tensor] = []
        for block in blocks:
            if stage:
                for correction in self.corrections[: stage + 1]:
                    block.advance(correction)
            found.append(block.parameters() if stage else block.first_answer())
        return groups.joined(found)

    def answer_within(self, weights: Tensor, bound: BoundPoints, *, accuracy: float) -> Tensor:
        """Answers after the fewest gradients, at least one, whose estimated error is within this.

        A network without gradients answers without.
        """
        if not self.last_stage:
            return self.answer(weights, bound, stage=0)
        groups, blocks = self._blocks(weights, bound)
        return groups.joined([self._within(block, accuracy) for block in blocks])

    def _within(self, block: "_Block", accuracy: float) -> Tensor:
        for correction in self.corrections[:2]:
            block.advance(correction)
        assert block.move is not None
        moves, rows = block.move, torch.arange(len(block.move), device=block.move.device)
        left = block
        for correction in self.corrections[2:]:
            further = (left.errors() > accuracy).nonzero()[:, 0]
            if not len(further):
                break
            if len(further) < len(rows):
                rows, left = rows[further], left.only(further)
            left.advance(correction)
            assert left.move is not None
            moves = moves.index_copy(0, rows, left.move)
        return block.path.parameters(block.level, moves)

    def stages(
        self, weights: Tensor, bound: BoundPoints, prepared: Tensor | None
    ) -> Iterator[Tensor]:
        """Answers after 0, 1, ... gradients."""
        del prepared
        groups, blocks = self._blocks(weights, bound)
        yield groups.joined([block.first_answer() for block in blocks])
        for block in blocks:
            block.advance(self.corrections[0])
        for correction in self.corrections[1:]:
            for block in blocks:
                block.advance(correction)
            yield groups.joined([block.parameters() for block in blocks])

    def _blocks(self, weights: Tensor, bound: BoundPoints) -> "tuple[ByLevel, list[_Block]]":
        path = bound.anchors
        assert isinstance(path, BoundNewtonPath)
        groups = path.by_level(weights)
        return groups, _blocks(path, groups, accelerated=not bool(self.corrections.any()))


@final
class _Block:
    """Subsets of one level, and their moves after the gradients so far."""

    def __init__(
        self, path: BoundNewtonPath, level: Level, weights: Tensor, *, accelerated: bool
    ) -> None:
        self.path, self.level, self.weights = path, level, weights
        self.start = path.starts(level, weights)
        self.totals, self.squares = path.totals(weights)
        self.logs = path.log_shares(level, self.totals)
        self.move: Tensor | None = None
        self.last, self.before = torch.zeros(2, *self.start.shape, device=self.start.device)
        self.acceleration = Acceleration(level.curvatures) if accelerated else None

    @cached_property
    def spread(self) -> Tensor:
        """The t of the module's text, [subsets, 1], float32."""
        mean = self.totals.clamp(min=1e-9)
        return (self.squares / mean - self.totals / self.weights.shape[1])[:, None]

    @cached_property
    def rare_weights(self) -> Tensor | None:
        """Those of the rows with a rare value, [subsets, rows]; None if there are no such rows."""
        return None if self.path.rare is None else self.path.rare.weights(self.weights)

    @cached_property
    def first(self) -> Tensor:
        """d_0 [subsets, parameters], uncorrected."""
        return self.path.moves(self.level, self.start, self.logs)

    def step(self) -> Tensor:
        """v_k at the present move, -d_0 before the first; no longer than any parameters of the path."""
        if self.move is None:
            if self.acceleration is not None:  # v at theta_s, which cost no gradient
                self.acceleration.before = -self.path.rescaled(self.level, self.start, self.logs)
            return self.shortened(-self.first)
        step = self.path.gradient_step(self.level, self.weights, self.start, self.move)
        step = self.shortened(self.path.rescaled(self.level, step, self.logs))
        if self.acceleration is None:
            return step
        return self.shortened(self.acceleration(step, self.last))

    def shortened(self, step: Tensor) -> Tensor:
        """The step, no longer than any parameters of the path."""
        length = (step * step).sum(1, keepdim=True).sqrt().clamp(min=1e-30)
        return step * (self.path.longest / length).clamp(max=1)

    def first_answer(self) -> Tensor:
        """The answer at d_0."""
        return self.path.parameters(self.level, self.shortened(self.first))

    def advance(self, correction: Tensor) -> None:
        """Take the next step with its correction [inputs, parameters]."""
        self.take(self.step(), correction)

    def inputs(self, step: Tensor) -> Tensor:
        """The inputs that a correction multiplies, [inputs, subsets, parameters]."""
        once = self.spread.expand_as(step)
        twice = once * once
        return torch.stack([once * step, twice * step, once * self.last, once, twice])

    def take(self, step: Tensor, correction: Tensor) -> None:
        """Take this step with its correction; then the coefficients of rare columns are at their optimum."""
        change = -step
        if bool(correction.any()):
            t = self.spread
            own, squared, kept, shift, bent = correction
            factor = torch.addcmul(own, t, squared) * step
            factor = torch.addcmul(factor, kept, self.last) + torch.addcmul(shift, t, bent)
            change = torch.addcmul(change, t, factor)
        move = change if self.move is None else self.move + change
        if (weights := self.rare_weights) is not None:
            settled = self.path.rare_change(self.level, move, weights)
            move, change = move + settled, change + settled
        self.move, self.last, self.before = move, change, self.last

    def errors(self) -> Tensor:
        """About the relative error [subsets] of the present move, after at least one gradient.

        The next moves would be shorter by the ratio q of the last two: |d - d*| = |last| (q + q^2 + ...).
        """
        assert self.move is not None
        last, before = self.last.norm(dim=1), self.before.norm(dim=1)
        ratio = (last / before.clamp(min=1e-30)).clamp(max=SLOWEST)
        return UNDERRATED * last * ratio / (1 - ratio) / self.level.theta.norm().clamp(min=1e-30)

    def only(self, rows: Tensor) -> "_Block":
        """The block of these of its subsets, where it is now."""
        chosen = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):  # all are [subsets, ...]
                setattr(chosen, name, value[rows])
        if self.acceleration is not None:
            chosen.acceleration = self.acceleration.only(rows)
        return chosen

    def parameters(self) -> Tensor:
        """The answer at the present move."""
        assert self.move is not None
        return self.path.parameters(self.level, self.move)


def _blocks(path: BoundNewtonPath, groups: ByLevel, *, accelerated: bool) -> list[_Block]:
    """The subsets in the order of `groups`, few enough at once for the cache."""
    return [
        _Block(path, path.level(index), part, accelerated=accelerated)
        for index, weights in zip(groups.levels, groups.weights, strict=True)
        for part in weights.split(path.at_once)
    ]


# --- fitting -----------------------------------------------------------------------------------

MOST_GRADIENTS = 12
ENOUGH = 0.01  # mean relative error at which no further gradient is taken, or only one
WORTH = 3  # by what a gradient must divide an error that is enough
MOST_FITTED = 1000  # subsets that corrections are fitted to
FITTED_BYTES = 2**28  # of their parameters, float32
LEAST_FITTED = 50
JUDGED = 256  # subsets whose errors are measured at once
LEFT_OUT = 5  # without validation subsets, every fifth one judges

Trained = tuple[Tensor, Tensor]  # weights [subsets, points], parameters [subsets, parameters]


def fit_newton_network(
    network: NewtonNetwork,
    model: TargetModel,
    points: Points,
    fit: Trained,
    *,
    validation: Trained | None = None,
    fixed: bool = False,
    before: "tuple[NewtonNetwork, list[float]] | None" = None,
) -> tuple[NewtonNetwork, list[dict[str, float | int]]]:
    """A network with corrections where they help and as many gradients as are worth it.

    Args:
        network: with the most gradients that it may have, uncorrected.
        model: the family.
        points: the pool.
        fit: trained subsets; `MOST_FITTED` of them are used.
        validation: other trained subsets, which decide; default: every fifth of the fit.
        fixed: take all gradients, whatever they gain.
        before: a network that was fitted to fewer subsets, with its errors on the same validation
            subsets; the answer is that network if the new corrections are not better.

    Returns:
        The network, and a record of the errors after each number of gradients. Its last error is that
        of the network's answer.
    """
    began = time.perf_counter()
    if validation is None:
        judge = torch.arange(len(fit[0])) % LEFT_OUT == 0
        validation = fit[0][judge], fit[1][judge]
        fit = fit[0][~judge], fit[1][~judge]
    fit, validation = _some(fit), _some(validation)
    bound = network.bind(model, points)
    enough = 0.0 if fixed else ENOUGH
    answer, errors = before or (
        network,
        stage_errors(network, bound, validation, enough=enough),
    )
    if len(fit[0]) >= LEAST_FITTED and min(errors) > ENOUGH:
        corrected = network.with_corrections(fitted_corrections(network, bound, fit))
        others = stage_errors(corrected, bound, validation, enough=enough)
        if min(others) < min(errors):
            answer, errors = corrected, others
    steps = errors.index(min(errors))
    steps = next((k for k, error in enumerate(errors) if error <= ENOUGH), steps)
    if any(error <= errors[steps] / WORTH for error in errors[steps + 1 : steps + 2]):
        steps += 1
    if fixed:
        steps = answer.last_stage
    answer = answer.with_corrections(answer.corrections[: steps + 1])
    seconds = time.perf_counter() - began
    return answer, [
        {"epoch": 0, "loss": error, "validation_error": error, "seconds": seconds}
        for error in errors[: steps + 1]
    ]


def _some(trained: Trained) -> Trained:
    """About `MOST_FITTED` of the subsets, evenly spaced; fewer of many parameters."""
    most = min(MOST_FITTED, max(1, FITTED_BYTES // (4 * trained[1].shape[1])))
    step = -(-len(trained[0]) // most)
    return (trained[0][::step], trained[1][::step]) if step > 1 else trained


def stage_errors(
    network: NewtonNetwork, bound: BoundPoints, trained: Trained, *, enough: float = 0.0
) -> list[float]:
    """Mean relative error after each number of gradients; of few subsets up to one more than is `enough`."""
    weights, parameters = trained
    sums = [0.0] * len(network.corrections)
    features, few = bound.points.features.shape[1], len(weights) <= JUDGED
    with torch.no_grad():
        for rows, true in zip(weights.split(JUDGED), parameters.split(JUDGED), strict=True):
            for stage, answer in enumerate(network.stages(rows, bound, None)):
                sums[stage] += float(capped_errors(bound.model, answer, true, features).sum())
                if few and stage and sums[stage - 1] <= enough * len(weights):
                    return [total / len(weights) for total in sums[: stage + 1]]
    return [total / max(1, len(weights)) for total in sums]


def fitted_corrections(network: NewtonNetwork, bound: BoundPoints, fit: Trained) -> Tensor:
    """Corrections [steps + 1, inputs, parameters], each fitted to what the ones before it leave."""
    path = bound.anchors
    assert isinstance(path, BoundNewtonPath)
    weights, parameters = fit
    groups = path.by_level(weights)
    blocks = _blocks(path, groups, accelerated=False)
    ordered = parameters if groups.order is None else parameters[groups.order]
    targets = [
        blockwise(part.to(torch.float32) - block.level.theta, path.basis)
        for block, part in zip(
            blocks, ordered.split([len(block.weights) for block in blocks]), strict=True
        )
    ]
    found: list[Tensor] = []
    with torch.no_grad():
        for _ in range(len(network.corrections)):
            steps = [block.step() for block in blocks]
            correction = _least_squares(blocks, steps, targets)
            for block, step in zip(blocks, steps, strict=True):
                block.take(step, correction)
            found.append(correction)
    return torch.stack(found)


def _least_squares(blocks: list[_Block], steps: list[Tensor], targets: list[Tensor]) -> Tensor:
    """The correction [inputs, parameters] of least squared relative error over all blocks."""
    size = targets[0].shape[1]
    squares = targets[0].new_zeros(size, INPUTS, INPUTS, dtype=torch.float64)
    right = targets[0].new_zeros(size, INPUTS, dtype=torch.float64)
    for block, step, target in zip(blocks, steps, targets, strict=True):
        left = target + step if block.move is None else target - block.move + step
        theta = blockwise(block.level.theta[None], block.path.basis)
        scale = 1 / (target + theta).norm(dim=1).clamp(min=1e-12)
        inputs = (block.inputs(step) * scale[:, None]).permute(2, 1, 0).to(torch.float64)
        squares += inputs.mT @ inputs
        right += (inputs.mT @ (left * scale[:, None]).T[:, :, None].to(torch.float64))[..., 0]
    diagonal = squares.diagonal(dim1=1, dim2=2)
    system = squares + torch.diag_embed(RIDGE * diagonal + 1e-30)
    return torch.linalg.solve(system, right).T.to(torch.float32)

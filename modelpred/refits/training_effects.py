"""What a row adds to margins of models that are trained by a recipe, from derivatives through trainings.

The margin is not linear in a row's weight: the residual of a row shrinks when the row is in the subset. Let q_i(t)
be the residual of row i in epoch t, and E[. | in] and E[. | out] means over runs on random subsets that have the
row, and that do not. What epoch t adds to the derivative (torch_derivatives.py) is multiplied by

    row not in the subset    E[q_i(t) | in] / q_i(t)                                                (classes)
                             E[|q_i(t)| | in] / E[|q_i(t)| | out]                                   (numbers)
    row in the subset        1 + (1 - q_i(t)) (log-odds(E[q_i(t) | out]) - log-odds(q_i(t)))        (classes)
                             E[|q_i(t)| | out] / E[|q_i(t)| | in]                                   (numbers)

The first puts the residual that the row has in training in the place of the one it has outside. The second removes
the row's own curvature from the derivative: with leverage h, a row raises its own margin by h q_i, and its curvature
q_i (1 - q_i) makes the derivative smaller by the factor 1 + h q_i (1 - q_i). The mean over runs is then close to the
mean effect of the row, E[margin | in] - E[margin | out].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import grad, vmap

from modelpred.refits.retraining import Progress, silent
from modelpred.targets import Points, TorchTarget
from modelpred.targets.torch_derivatives import DifferentiableTraining, TrainingPath

LEAST_RESIDUAL = 1e-6
MOST_FACTOR = 30.0


@dataclass(frozen=True, eq=False)
class Run:
    """A training on a subset.

    Attributes:
        target: the recipe, with the seed of this run.
        points: the pool.
        weights: how often the subset takes each row, [points]; sample weights are multiplied in.
    """

    target: TorchTarget
    points: Points
    weights: Tensor

    def path(self) -> TrainingPath:
        """The training, with every row's residual in each epoch."""

        def residual(outputs: Tensor, labels: Tensor) -> Tensor:
            margins = self.target.margins(outputs[None], labels)[0]
            return margins.abs() if self.target.regression else torch.sigmoid(-margins)

        return self._training.path(self.target.module.start, residual)

    def effects(self, path: TrainingPath, slopes: dict[str, Tensor], factors: Tensor) -> Tensor:
        """Factors times derivatives of scores [scores, points], from the scores' slopes at the end."""
        return self._training.derivatives(path, slopes, factors) * self.points.factors

    def margin_slopes(self, path: TrainingPath, tested: Points) -> dict[str, Tensor]:
        """Gradients of the margins of test rows by the trained parameters, by name."""
        outputs = self._outputs

        def margin(parts: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
            return self.target.margins(outputs(parts, row[None])[None], label[None])[0, 0]

        rows = tested.features.to(self.target.working)
        return vmap(grad(margin), in_dims=(None, 0, 0))(path.end, rows, tested.labels)

    def loss_slopes(self, path: TrainingPath, tested: Points) -> dict[str, Tensor]:
        """The gradient of minus the mean loss of test rows by the trained parameters, by name."""
        rows = tested.features.to(self.target.working)

        def gain(parts: dict[str, Tensor]) -> Tensor:
            return -self.target.row_losses(self._outputs(parts, rows), tested.labels).mean()

        return {name: part[None] for name, part in grad(gain)(path.end).items()}

    def _outputs(self, parts: dict[str, Tensor], rows: Tensor) -> Tensor:
        module = self.target.module
        return module.outputs(parts, rows, module=module.own_module(training=False))

    @property
    def _training(self) -> DifferentiableTraining:
        target = self.target
        points = self.points.to(dtype=target.working)
        weights = points.weighted(self.weights[None])[0]
        return DifferentiableTraining(
            target.training, target.module, points, weights, target.row_losses
        )


def runs_of(target: TorchTarget, points: Points, subsets: Tensor) -> list[Run]:
    """Trainings on subsets [subsets, points], each with its own seed."""
    return [
        Run(replace(target, seed=int(target.seed) + place), points, weights)
        for place, weights in enumerate(subsets.to(target.working))
    ]


@dataclass(frozen=True, eq=False)
class Effects:
    """What rows add to scores, [scores, points].

    Attributes:
        mean: over runs.
        error: standard error of the mean over runs; it does not contain the error of the factors.
    """

    mean: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Residuals:
    """Mean residuals of rows in runs with them and without them, [epochs, points].

    Attributes:
        inside: of the runs whose subset has the row.
        outside: of the others.
    """

    inside: Tensor
    outside: Tensor

    @classmethod
    def of(cls, residuals: Tensor, weights: Tensor) -> "Residuals":
        """From residuals [runs, epochs, points] and weights [runs, points].

        A row that all runs have, or none, takes the ratio of the two means over the other rows.
        """
        used = (weights > 0)[:, None].expand_as(residuals)
        inside, outside = (
            torch.where(where, residuals, torch.nan).nanmean(0) for where in (used, ~used)
        )
        known = inside.isfinite() & outside.isfinite()
        sums = [
            torch.where(known, part, 0).sum(1, keepdim=True).clamp(min=LEAST_RESIDUAL)
            for part in (inside, outside)
        ]
        ratio = sums[0] / sums[1]
        return cls(
            torch.where(inside.isfinite(), inside, outside * ratio),
            torch.where(outside.isfinite(), outside, inside / ratio),
        )

    def factors(self, own: Tensor, weights: Tensor, *, regression: bool) -> Tensor:
        """The factors of what each epoch adds to a derivative, [epochs, points].

        Args:
            own: residuals of the run.
            weights: of the run, [points].
            regression: whether labels are numbers.
        """
        inside, outside, own = (
            part.clamp(min=LEAST_RESIDUAL) for part in (self.inside, self.outside, own)
        )
        if regression:
            rising, falling = outside / inside, inside / outside
        else:
            most = 1 - LEAST_RESIDUAL
            odds = outside.clamp(max=most).logit() - own.clamp(max=most).logit()
            rising, falling = 1 + (1 - own) * odds, inside / own
        return torch.where(
            weights > 0, rising.clamp(1, MOST_FACTOR), falling.clamp(1 / MOST_FACTOR**2, 1)
        )


def training_effects(
    runs: Sequence[Run],
    slopes: Callable[[Run, TrainingPath], dict[str, Tensor]],
    *,
    followed: int,
    progress: Progress = silent,
) -> Effects:
    """What each row adds to scores, in the mean over runs.

    Args:
        runs: trainings on random subsets; their mean residuals make the factors.
        slopes: gradients of the scores by trained parameters: `Run.margin_slopes` or
            `Run.loss_slopes` on test rows.
        followed: how many of the runs are differentiated, each at about one more training a score.
        progress: called with (runs done, runs, what).
    """
    total = len(runs) + followed
    seen: list[Tensor] = []
    for done, run in enumerate(runs):
        progress(done, total, "trainings with residuals")
        seen.append(run.path().watched)
    residuals = Residuals.of(torch.stack(seen), torch.stack([run.weights for run in runs]))
    mean, squares = torch.zeros(()), torch.zeros(())
    for done, (run, own) in enumerate(zip(runs[:followed], seen, strict=False)):
        progress(len(runs) + done, total, "derivatives through trainings")
        factors = residuals.factors(own, run.weights, regression=run.target.regression)
        path = run.path()
        found = run.effects(path, slopes(run, path), factors).to(torch.float64)
        change = found - mean
        mean = mean + change / (done + 1)
        squares = squares + change * (found - mean)
    progress(total, total, "derivatives through trainings")
    return Effects(mean, (squares / max(1, followed - 1) / followed).sqrt())

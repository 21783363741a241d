"""What can be known about the models of a stochastic recipe, and how much of it predictions know.

Much of what a retraining shows is the luck of its seed. With margins of test rows under models of subsets:

    agreement   LDS between two runs that differ in the seed only; of means of k seeds by the formula of
                Spearman and Brown, k r / (1 + (k - 1) r)
    ceiling     the square root of that of means of k: about the LDS of a predictor that knows the mean
                over all seeds, against means of k seeds
    smoothness  <half, full> / <full, full>, with the changes of margins when rows are removed, and when
                they get half of their weight, each from other seeds: about 1/2 if half of a change has
                half of its effect (0.47 for a mean, as weights are shares of their sum)

LDS is the mean over test rows of Spearman's correlation over subsets (`modelpred.metrics.lds`).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import Interval, lds
from modelpred.predictor.subset_scores import subset_scores
from modelpred.refits import Progress, Retraining, silent
from modelpred.refits.projected_gradients import RIDGES, projected_gradients
from modelpred.refits.subset_influence import Model, subset_sums
from modelpred.refits.training_effects import runs_of, training_effects
from modelpred.targets import Points, TorchTarget
from modelpred.targets.scoring import scored

FEWEST = 5
DIMENSIONS = 512
MODELS = 60  # retrained models at which gradients are taken
WATCHED = 20  # trainings that show the residuals of rows with them and without them
MOST_ROWS = 10_000  # for more, products of all rows' gradients take too much time and memory
REMOVED = 0.1  # share of the rows whose removal measures smoothness
RESAMPLES = 200


@dataclass(frozen=True)
class FidelityPlan:
    """How many models are trained to judge a recipe.

    Attributes:
        seeds: of which the target is the mean.
        fit: random halves that the predictions learn from.
        held_out: random halves that they are tested on.
        changes: sets of rows whose removal measures smoothness.
        followed: halves of `fit` whose trainings are differentiated; each takes about as long as one more
            training a test row.
        seed: of the draws.
    """

    seeds: int = 2
    fit: int = 100
    held_out: int = 50
    changes: int = 8
    followed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("seeds", 2), ("fit", FEWEST), ("held_out", FEWEST), ("changes", 2)):
            if (value := getattr(self, name)) < least:
                raise InvalidInput(f"{name} is {value}; expected {least} or more")
        if not 0 <= self.followed <= self.fit:
            raise InvalidInput(
                f"followed is {self.followed}; expected 0 to {self.fit}, the number of subsets of the fit"
            )

    @property
    def models(self) -> int:
        """How many models are trained."""
        return self.seeds * (self.fit + self.held_out + 2 * self.changes + 1)


def halves(
    points: int, count: int, generator: np.random.Generator
) -> UInt8[Tensor, "count points"]:
    """Random subsets of half of the rows."""
    weights = np.zeros((count, points), dtype=np.uint8)
    for row in weights:
        row[generator.permutation(points)[: max(1, points // 2)]] = 1
    return torch.from_numpy(weights)


def changed(
    points: int, count: int, generator: np.random.Generator
) -> UInt8[Tensor, "rows points"]:
    """All rows twice; then for each set of rows, those once (half of their weight), and removed."""
    rows = [np.full(points, 2, dtype=np.uint8)]
    for _ in range(count):
        chosen = generator.permutation(points)[: max(1, round(REMOVED * points))]
        for weight in (1, 0):
            rows.append(rows[0].copy())
            rows[-1][chosen] = weight
    return torch.from_numpy(np.stack(rows))


def recipe_fidelity(
    target: TorchTarget,
    points: Points,
    test_points: Points,
    plan: FidelityPlan,
    *,
    tolerance: float = 1e-6,
    progress: Progress = silent,
) -> pl.DataFrame:
    """A row for each measure: agreement of seeds, ceiling and smoothness, then the methods' LDS.

    Args:
        target: the recipe.
        points: the pool.
        test_points: whose margins are predicted.
        plan: how many models are trained.
        tolerance: of training, which a fixed number of steps ignores.
        progress: called with (models done, models, what).

    Returns:
        Columns measure, value, low, high (95%), share_of_ceiling (of the methods, else null).

    Raises:
        InvalidInput: a training does not end finite.
    """
    count = len(points.labels)
    draws = [np.random.default_rng([plan.seed, stream]) for stream in (0, 1, 2)]
    fit, held_out = halves(count, plan.fit, draws[0]), halves(count, plan.held_out, draws[1])
    changes = changed(count, plan.changes, draws[2])
    recipe = _Recipe(target, points, test_points)
    margins, full, halved = recipe.runs(
        torch.cat([changes, fit, held_out]),
        range(len(changes), len(changes) + min(plan.fit, MODELS)),
        seeds=plan.seeds,
        tolerance=tolerance,
        progress=progress,
    )
    seen, known, truth = margins.split([len(changes), plan.fit, plan.held_out], 1)
    seeds = _seeds(truth)
    ceiling = seeds[-1][1].mean
    followed = fit[: max(plan.followed, WATCHED)], plan.followed
    effects = recipe.effects(*followed, progress) if plan.followed else None
    subsets = torch.cat([fit, held_out])
    predictions = recipe.predictions(full, halved, known.mean(0), subsets, effects)
    scores = {name: lds(found, truth.mean(0)) for name, found in predictions.items()}
    rows = [
        *seeds,
        _smoothness(seen, plan),
        *((f"LDS, {name}", own) for name, own in scores.items()),
    ]
    shares = [own.mean / ceiling if ceiling > 0 else None for own in scores.values()]
    return pl.DataFrame(
        {
            "measure": [name for name, _ in rows],
            "value": [interval.mean for _, interval in rows],
            "low": [interval.low for _, interval in rows],
            "high": [interval.high for _, interval in rows],
            "share_of_ceiling": pl.Series(
                [None] * (len(rows) - len(shares)) + shares, dtype=pl.Float64
            ),
        }
    )


@dataclass(frozen=True)
class _Recipe:
    """A recipe, its pool, and the rows whose margins are predicted."""

    target: TorchTarget
    points: Points
    test_points: Points

    def runs(
        self,
        weights: Tensor,
        some: range,
        *,
        seeds: int,
        tolerance: float,
        progress: Progress,
    ) -> tuple[Float[Tensor, "seeds subsets test_rows"], list[Tensor], list[Model]]:
        """Margins of every subset's models, one for each seed, and some of the models.

        They are those of the first subset, of each seed, and one of each of `some` others, of the seeds in turn.
        """
        runs: list[Tensor] = []
        first: list[Tensor] = []
        others: dict[int, Model] = {}
        total = seeds * len(weights)
        for run in range(seeds):
            own = replace(self.target, seed=int(self.target.seed) + run)

            def report(done: int, _: int, what: str, before: int = run * len(weights)) -> None:
                progress(before + done, total, what)

            parameters = Retraining(own, self.points, tolerance=tolerance)(weights, progress=report)
            runs.append(self.margins(parameters))
            first.append(parameters[0])
            for place in some[run::seeds]:
                others[place] = Model(parameters[place].clone(), weights[place])
        return torch.stack(runs), first, [others[place] for place in some]

    def margins(self, parameters: Tensor) -> Float[Tensor, "subsets test_rows"]:
        """Margins of the test rows under each model."""
        if not bool(torch.isfinite(parameters).all()):
            raise InvalidInput("a training did not end finite; lower the learning rate")
        model, labels = self.target, self.test_points.labels

        def reduce(scores: Tensor) -> Tensor:
            return model.margins(scores, labels)

        return scored(reduce, model, parameters, self.test_points, columns=(len(labels),))

    def effects(
        self, subsets: Tensor, followed: int, progress: Progress
    ) -> Float[Tensor, "test_rows points"]:
        """What rows add to margins, from derivatives through trainings on the first of the subsets."""
        found = training_effects(
            runs_of(self.target, self.points, subsets),
            lambda run, path: run.margin_slopes(path, self.test_points),
            followed=followed,
            progress=progress,
        )
        if not bool(torch.isfinite(found.mean).all()):
            raise InvalidInput("a training did not end finite; lower the learning rate")
        return found.mean

    def predictions(
        self,
        full: list[Tensor],
        models: list[Model],
        known: Tensor,
        subsets: Tensor,
        effects: Tensor | None,
    ) -> dict[str, Tensor]:
        """Margins of the subsets after the known ones [subsets, test rows], by each method.

        Ridges are those whose attributions rank the known margins best.

        Args:
            full: parameters of models of all rows.
            models: of some of the subsets.
            known: margins of the first subsets.
            subsets: weights.
            effects: what rows add to margins, from derivatives through trainings; None: not known.
        """
        count = len(known)
        weights = subsets.to(torch.float64)

        def quality(sums: Tensor) -> float:
            return lds(sums[:count], known).mean

        attributions, features = self._projected(full, lambda tau: quality(weights @ tau.T))
        projected = weights @ attributions.T
        centre = weights[:count].mean(0)
        rows = weights - centre
        linear = rows @ rows.T
        found = {"projected gradients": projected[count:]}
        if len(self.points.labels) <= MOST_ROWS:
            own = subset_sums(
                self.target,
                self.points,
                self.test_points,
                models,
                subsets,
                centre=centre,
                quality=quality,
            )
            sums, kernel = [own.first, *own.second], own.products
            found["influence at models of subsets"] = own.first[count:]
        else:
            carried = rows @ features
            sums, kernel = [projected], carried @ carried.T
        if effects is not None:
            through = rows @ effects.to(rows).T
            sums, found["effects of training"] = [through, *sums], through[count:]
        return {
            "predictor": subset_scores(sums, linear, kernel, known),
            "linear datamodel": subset_scores([], linear, None, known),
            **found,
        }

    def _projected(
        self, full: list[Tensor], quality: Callable[[Tensor], float]
    ) -> tuple[Tensor, Tensor]:
        """Attributions [test rows, points] by projected gradients, and features of the rows."""
        found = [
            projected_gradients(
                self.target,
                self.points,
                self.test_points,
                own,
                dimensions=max(1, min(DIMENSIONS, len(self.points.labels) // 2)),
                seed=seed,
            )
            for seed, own in enumerate(full)
        ]
        at = {ridge: [each.features(ridge) for each in found] for ridge in RIDGES}
        attributions = {
            ridge: torch.stack([each.attributions() for each in own]).mean(0)
            for ridge, own in at.items()
        }
        best = max(RIDGES, key=lambda ridge: quality(attributions[ridge]))
        return attributions[best], torch.cat([each.pool for each in at[best]], 1)


def _seeds(margins: Float[Tensor, "seeds subsets test_rows"]) -> list[tuple[str, Interval]]:
    """Agreement of two seeds, of means of all of them, and the ceiling."""
    seeds = len(margins)
    pairs = [lds(one, other) for one, other in itertools.combinations(margins, 2)]
    two = Interval(
        *(
            float(np.mean([getattr(pair, name) for pair in pairs]))
            for name in ("mean", "low", "high")
        ),
        n=pairs[0].n,
    )
    means = _through(two, lambda r: seeds * r / (1 + (seeds - 1) * r))
    return [
        ("agreement of two seeds", two),
        (f"agreement of means of {seeds} seeds (estimated)", means),
        (f"ceiling of the LDS against means of {seeds} seeds", _through(means, math.sqrt)),
    ]


def _through(interval: Interval, change: Callable[[float], float]) -> Interval:
    """An interval of a rising function of its value, from zero on."""
    low, mean, high = (
        change(max(0.0, value)) for value in (interval.low, interval.mean, interval.high)
    )
    return Interval(mean, low, high, interval.n)


def _smoothness(
    margins: Float[Tensor, "seeds rows test_rows"], plan: FidelityPlan
) -> tuple[str, Interval]:
    """The share of an effect that half of its change has; the interval is over the changes."""
    effects = margins[:, 1:] - margins[:, :1]
    half, full = effects[:, ::2], effects[:, 1::2]  # [seeds, changes, test rows]
    pairs = list(itertools.permutations(range(len(margins)), 2))
    shared = torch.stack([(half[a] * full[b]).sum(1) for a, b in pairs]).mean(0)
    own = torch.stack([(full[a] * full[b]).sum(1) for a, b in pairs]).mean(0)
    draws = np.random.default_rng([plan.seed, 3]).integers(0, len(own), (RESAMPLES, len(own)))
    ratios = (shared[draws].sum(1) / own[draws].sum(1)).numpy()
    low, high = np.quantile(ratios, [0.025, 0.975])
    value = float(shared.sum() / own.sum())
    return "smoothness (about 0.5: half of a change has half of its effect)", Interval(
        value, float(low), float(high), len(own)
    )

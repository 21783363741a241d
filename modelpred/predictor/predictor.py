"""A fitted predictor: a refit that also refines its answers and bounds their error."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.numbers import Number, steps_number, whole_number
from modelpred.predictor.anchors import Anchors, BoundAnchors
from modelpred.predictor.backtracking import unseen
from modelpred.predictor.config import PredictorConfig
from modelpred.predictor.network import AnchoredNetwork, BoundPoints, PaperNetwork, SetNetwork
from modelpred.predictor.newton_network import NewtonNetwork
from modelpred.predictor.newton_path import BoundNewtonPath, NewtonPath, fit_newton_path
from modelpred.predictor.refinement import CERTIFICATE_STEPS, error_bound, refine_parameters
from modelpred.targets import Points, TargetModel, train_targets
from modelpred.targets.compiled.answers import totals_of
from modelpred.targets.linear import Linear, trains_in_c
from modelpred.targets.points import class_counts
from modelpred.targets.threads import threads_for
from modelpred.targets.weights import check_sizes, weights_of

ANSWER_BLOCK = 2048  # most subsets answered at once: bounds memory, fills a matrix product
SMALLEST_BLOCK = 256
WEIGHT_BYTES = 2**25  # of the weights of subsets that are grouped by share at once
BLOCK_BYTES = 2**20  # of the scores of subsets that are answered at once
# Fits see counts of rows. Far outside of them an answer is no prediction, but a number of any size.
LARGEST_WEIGHT = 1e6
SMALLEST_TOTAL = 0.5


@dataclass(frozen=True, eq=False)
class Predictor:
    """A fitted set function: weights [subsets, points] -> parameters [subsets, parameters].

    It is a refit like any other: `predictor(weights)`. `predict` refines, `certificate` bounds the
    error without retraining, `for_points` asks about points that fitting never saw.

    Of a quadratic objective (ridge) nothing has to be predicted: answers are its exact minimisers,
    and the network is not asked. Only the published network (`paper`) always answers itself.
    """

    model: TargetModel
    points: Points
    network: SetNetwork
    anchors: Anchors
    config: PredictorConfig
    row_ids: tuple[str, ...] = ()
    history: tuple[dict[str, float | int], ...] = ()
    known: Points | None = None  # the points of the fit; None: these
    tolerance: float = 1e-6  # to which the targets of the fit were trained, and exact answers are
    bound: BoundPoints = field(init=False, repr=False)
    refining: BoundAnchors = field(init=False, repr=False)

    name = "predictor"

    def __post_init__(self) -> None:
        self.network.eval()
        bound = self.network.bind(self.model, self.points)
        if self.known is not None:
            bound = replace(bound, unseen=unseen(self.points, self.known))
        object.__setattr__(self, "bound", bound)
        refining = self.bound.anchors or self.anchors.bind(self.model, self.points, torch.float32)
        object.__setattr__(self, "refining", refining)

    def __call__(self, weights: Tensor) -> Tensor:
        """`predict` without refinement."""
        return self.predict(weights)

    @property
    def stages(self) -> int:
        """Stages after the anchor: the largest number that `predict` takes; 0 for exact answers."""
        return 0 if self.exact else self.network.last_stage

    @property
    def exact(self) -> bool:
        """Whether answers are exact minimisers."""
        return self.model.quadratic and not isinstance(self.network, PaperNetwork)

    def predict(
        self,
        weights: Tensor,
        *,
        refine: Number = 0,
        stages: Number | None = None,
        accuracy: float | None = None,
    ) -> Tensor:
        """Predicted parameters, float64 [subsets, parameters].

        Args:
            weights: [subsets, points], finite and not negative.
            refine: Newton steps from the prediction, or tens of gradients more for a family of
                fixed steps; a fraction is a fraction of a step. Where a kernel in C trains the
                family, in less time than a step takes, any number above 0 gives the trained models.
            stages: after how many stages to stop, for an answer that is cheaper and less exact: 0
                is the anchor, 1 the first correction, and so on with a learned step each. Default:
                all.
            accuracy: relative error of the parameters at which a subset takes no further gradient, by an
                estimate from its last two steps; for Newton directions, in place of `stages`. Exact
                answers ignore it.

        Raises:
            InvalidInput: weights of the wrong shape or value, a negative `refine`, stages that
                the predictor does not have, or an accuracy that it cannot stop at.
        """
        refine = steps_number(refine)
        self._check_accuracy(accuracy, stages)
        if stages is not None:
            stages = whole_number(stages, "stages")
            if not 0 <= stages <= self.stages:
                raise InvalidInput(f"stages is {stages}; this predictor has 0 to {self.stages}")
        weights = check_weights(weights, self.points)
        if not len(weights):
            return self.points.features.new_zeros(0, self.anchors.parameter_count)
        rows = self._at_once
        # Exact answers deal their blocks to threads themselves.
        alone = self.exact or (refine and self.retrains)
        threads = nullcontext() if alone else threads_for(self._bytes(rows))
        with threads:
            answers = [
                self._answer(block, refine=refine, stages=stages, accuracy=accuracy)
                for block in weights.split(rows)
            ]
        return torch.cat(answers)

    def _check_accuracy(self, accuracy: float | None, stages: Number | None) -> None:
        if accuracy is None:
            return
        if not accuracy > 0:
            raise InvalidInput(f"accuracy is {accuracy}; expected a number above 0, such as 0.01")
        if stages is not None:
            raise InvalidInput("stages and accuracy both say when to stop; pass one of them")
        if not self.exact and not isinstance(self.network, NewtonNetwork):
            raise InvalidInput(
                "accuracy needs a predictor of Newton directions, which this is not; pass stages"
            )

    @property
    def _at_once(self) -> int:
        """Subsets of a block; Newton directions divide it further, by share."""
        if isinstance(self.network, NewtonNetwork):
            return min(ANSWER_BLOCK, max(SMALLEST_BLOCK, WEIGHT_BYTES // len(self.points.labels)))
        return answered_at_once(self.model, self.points)

    def _bytes(self, rows: int) -> int:
        """Size of the scores of so many subsets, in double precision."""
        return 2 * rows * self.model.bytes_per_subset(self.points)

    def certificate(
        self,
        weights: Tensor,
        parameters: Tensor | None = None,
        *,
        refine: Number = 0,
        steps: int = CERTIFICATE_STEPS,
        of: str = "parameters",
        rows: Tensor | None = None,
    ) -> Tensor | None:
        """Upper bound [subsets] on ||theta_hat - theta|| without retraining; None if none is known.

        Args:
            weights: [subsets, points].
            parameters: the answer to bound; default `predict(weights, refine=refine)`.
            refine: see `predict`.
            steps: Newton steps spent on the bound: 0 is cheap and loose, 2 tight (refinement.py).
            of: `parameters`, or `margins`: a bound [subsets, rows] on how far any margin of each
                row of `rows` is from that of the retrained model, whatever the row's label.
            rows: [rows, features], scaled as the pool's.

        Raises:
            InvalidInput: another `of`, margins without rows or rows without margins, or rows of other columns.
        """
        judged = _margin_rows(of, rows, self.points)
        checked = check_weights(weights, self.points).to(self.points.features)
        if parameters is None:
            parameters = self.predict(checked, refine=refine)
        bounds: list[Tensor] = []
        with threads_for(self._bytes(min(ANSWER_BLOCK, len(checked)))):
            for block, answer in zip(
                checked.split(ANSWER_BLOCK), parameters.split(ANSWER_BLOCK), strict=True
            ):
                bound = error_bound(
                    self.model,
                    self.points,
                    self.refining,
                    weights=block,
                    parameters=answer,
                    steps=steps,
                    rows=judged,
                )
                if bound is None:
                    return None
                bounds.append(bound)
        return torch.cat(bounds)

    def for_points(self, points: Points, *, row_ids: tuple[str, ...] = ()) -> "Predictor":
        """The same set function over another pool, whose points fitting need not have seen.

        Args:
            points: the new pool: same features, scaling and classes.
            row_ids: its rows' ids.
        """
        if points.features.shape[1] != self.points.features.shape[1]:
            raise InvalidInput(
                f"the new points have {points.features.shape[1]} features but the predictor was "
                f"fitted with {self.points.features.shape[1]}; encode them the same way"
            )
        if isinstance(self.network, NewtonNetwork):
            return self._on_own_path(points, row_ids)
        return Predictor(
            self.model, points, self.network, self.anchors, self.config, row_ids, self.history,
            known=self.known or self.points, tolerance=self.tolerance,
        )  # fmt: skip

    def _on_own_path(self, points: Points, row_ids: tuple[str, ...]) -> "Predictor":
        """The predictor over another pool with that pool's own path, which costs a few trainings.

        Corrections belong to the basis of the path that they were fitted on, and are dropped.
        """
        assert isinstance(self.model, Linear)
        assert isinstance(self.network, NewtonNetwork)
        path = fit_newton_path(self.model, points, tolerance=self.tolerance)
        network = NewtonNetwork(path, steps=self.network.last_stage).to(points.features.device)
        return Predictor(
            self.model, points, network, path, self.config, row_ids, self.history,
            tolerance=self.tolerance,
        )  # fmt: skip

    def forward_unchecked(
        self,
        weights: Tensor,
        light: Tensor,
        *,
        refine: float | int,
        stages: int | None = None,
        accuracy: float | None = None,
    ) -> Tensor:
        """What `predict` gives for a block of subsets with an optimum, unchecked; autograd follows it.

        Args:
            weights: [subsets, points].
            light: the same in the network's precision, on its device.
            refine: see `predict`.
            stages: see `predict`.
            accuracy: see `predict`.
        """
        features = self.points.features

        def prediction() -> Tensor:
            if self.exact:
                return self._minimisers(weights.detach())
            if accuracy is not None and isinstance(self.network, NewtonNetwork):
                found = self.network.answer_within(light, self.bound, accuracy=accuracy)
                return found.to(torch.float64)
            last = self.stages if stages is None else stages
            return self.network.answer(light, self.bound, stage=last).to(torch.float64)

        if self.exact:  # a step changes nothing but what autograd can follow
            refine = max(refine, 1) if weights.requires_grad else 0
        if refine and self.retrains and not weights.requires_grad:
            answer = self._retrained(weights, light, refine=refine, stages=stages)
        elif refine:
            answer = refine_parameters(
                self.model,
                self.points,
                self.refining,
                weights=weights.to(device=features.device, dtype=torch.float64),
                start=prediction,
                steps=refine,
            )
        else:
            answer = prediction()
        return self.model.representative(answer, features.shape[1])

    @cached_property
    def retrains(self) -> bool:
        """Whether `refine` retrains: a kernel does so in less time than a Newton step takes."""
        return not self.exact and trains_in_c(self.model, self.points)

    def _retrained(
        self, weights: Tensor, light: Tensor, *, refine: float | int, stages: int | None
    ) -> Tensor:
        """Exact answers, and Newton steps where training did not converge."""
        answer = self._minimisers(weights)
        failed = answer.isnan().any(1)
        if bool(failed.any()):
            last = self.stages if stages is None else stages
            own = light[failed]
            answer[failed] = refine_parameters(
                self.model,
                self.points,
                self.refining,
                weights=weights[failed].to(device=answer.device, dtype=torch.float64),
                start=lambda: self.network.answer(own, self.bound, stage=last).to(answer),
                steps=refine,
            )
        return answer

    def _minimisers(self, weights: Tensor) -> Tensor:
        """Exact answers; nan where training did not converge."""
        points = self.points
        trained = train_targets(
            self.model,
            points.features,
            points.labels,
            weights,
            tolerance=self.tolerance,
            classes=points.classes,
            sample_weight=points.sample_weight,
        )
        return torch.where(trained.converged[:, None], trained.parameters, torch.nan)

    def _light(self, weights: Tensor) -> Tensor:
        """The weights in the type of the network's products."""
        path = self.bound.anchors
        if isinstance(path, BoundNewtonPath):
            return path.narrowed(weights)
        return weights.to(torch.float32)

    def _counts(self, light: Tensor) -> Tensor:
        """Numbers [subsets, classes] that are zero where a class is missing."""
        points = self.bound.points
        if light.dtype == torch.uint8:  # only kernels take them
            return totals_of(light, points.labels, points.classes).seen.to(torch.float32)
        return class_counts(light, points)

    def _answer(
        self, weights: Tensor, *, refine: float | int, stages: int | None, accuracy: float | None
    ) -> Tensor:
        device = self.points.features.device
        light = self._light(weights.to(device))
        with torch.no_grad():
            answer = self.forward_unchecked(
                weights, light, refine=refine, stages=stages, accuracy=accuracy
            )
        # Casting can only lose weights: a subset that has an optimum after it had one before.
        if not bool(self.model.without_optimum(self._counts(light)).any()):
            return answer
        exact = weights.to(device=device, dtype=torch.float64)
        return self.model.with_prior(answer, exact, self.points)


def answered_at_once(model: TargetModel, points: Points) -> int:
    """Subsets whose scores fit into the processor's cache beside what is made of them."""
    return min(ANSWER_BLOCK, max(SMALLEST_BLOCK, BLOCK_BYTES // model.bytes_per_subset(points)))


def _margin_rows(of: str, rows: Tensor | None, points: Points) -> Tensor | None:
    """The rows whose margins a certificate bounds; None where it bounds parameters."""
    if of not in ("parameters", "margins"):
        raise InvalidInput(f"of is {of!r}, expected 'parameters' or 'margins'")
    if (rows is not None) != (of == "margins"):
        raise InvalidInput("of='margins' and the rows whose margins are bounded go together")
    if rows is None:
        return None
    if rows.ndim != 2 or rows.shape[1] != points.features.shape[1]:
        raise InvalidInput(
            f"the rows have shape {list(rows.shape)}, expected [rows, {points.features.shape[1]}]"
        )
    return rows.to(points.features)


def check_weights(weights: Tensor, points: Points) -> Tensor:
    """Weights that a predictor can answer, [subsets, points] of any real type.

    Raises:
        InvalidInput: they are none, or of a size that no subset of whole rows has.
    """
    weights = weights_of(weights, points=len(points.features)).detach()
    check_sizes(weights, largest=LARGEST_WEIGHT, smallest=SMALLEST_TOTAL)
    return weights


def build_network(
    config: PredictorConfig, anchors: Anchors, points: Points, *, steps: int
) -> SetNetwork:
    """The network of a configuration with so many learned steps for these points, not initialised."""
    if config.network == "paper":
        return PaperNetwork(points.features.shape[1], 1, anchors.parameter_count)
    if isinstance(anchors, NewtonPath):
        return NewtonNetwork(anchors, steps=steps)
    return AnchoredNetwork(
        anchors,
        width=config.width,
        steps=steps,
        step_width=config.step_width,
    )

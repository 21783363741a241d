"""A torch module that is trained from a start by minibatches, as a family of target models.

    F_w(theta) = decay/2 ||theta||^2 + sum_i w_i loss(outputs(theta, x_i), y_i) / sum_i w_i

(without the first term for adamw, whose decay belongs to no objective). Training is in torch_recipe.py. The
start, the order of rows and dropout are functions of the seed, so that parameters are a function of the
weights; how smooth a function is another question (`fidelity`).

The functions here compute in the precision of the parameters that they are given. Training is in
`precision`, and trained parameters stay in it.
"""

import dataclasses
import functools
import json
from dataclasses import dataclass, fields
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from modelpred.errors import InvalidInput
from modelpred.numbers import Number, real_number, whole_number
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.shapes import Features, Labels, Parameters, PerPoint, Scores, Weights
from modelpred.targets.solving import Solution, Solver
from modelpred.targets.torch_modules import Built, built, trial
from modelpred.targets.torch_recipe import (
    STATES,
    Recipe,
    RowLosses,
    train,
)

LOSSES: dict[str, RowLosses] = {
    "cross_entropy": lambda outputs, labels: nn.functional.cross_entropy(
        outputs, labels, reduction="none"
    ),
    "binary_cross_entropy": lambda outputs, labels: nn.functional.binary_cross_entropy_with_logits(
        outputs[:, 0], labels.to(outputs), reduction="none"
    ),
    "mse": lambda outputs, labels: (outputs[:, 0] - labels).square(),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("constant", "linear", "cosine"),
    "precision": ("float32", "float64"),
    "labels": ("auto", "classes", "numbers"),
}
SETTINGS = (
    "optimizer", "learning_rate", "schedule", "momentum", "weight_decay", "batch_size", "epochs", "seed",
    "precision",
)  # fmt: skip
"""What params.yaml can say about a target."""
# Models that are trained together: enough for the products, few enough for the last cache.
CHUNK_BYTES = 64 * 2**20
ACTIVATION_BYTES = 256 * 2**20  # what layers make of the rows that are scored at once


@final
@dataclass(frozen=True, kw_only=True)
class TorchTarget(TargetModel):
    """A torch module with its training.

    Args:
        build: makes the module: a function without arguments, or the class of the module. Rows come
            as [rows, features]; begin with nn.Unflatten for images.
        loss: cross_entropy, binary_cross_entropy (one output), mse (one output), or a function from
            outputs [rows, outputs] and labels [rows] to a loss for each row.
        optimizer: sgd, adam or adamw, as in torch.optim.
        learning_rate: of the first step.
        schedule: constant, linear (to zero) or cosine (to zero).
        momentum: of sgd.
        weight_decay: on all parameters, as the optimiser has it.
        batch_size: rows of the pool in each step, of which a subset uses its own.
        epochs: passes over the pool.
        seed: decides the start, the order of rows and dropout.
        precision: of training, and of trained parameters.
        labels: classes, numbers, or auto: numbers for mse, classes for other losses.
        path: the import path of the target, as in params.yaml: mypackage.nets:target.
        code: SHA-256 of the file of `path` and of those that it imports.
        options: arguments of the function at `path` that made the target, as JSON; None if a target
            stands there.

    Raises:
        InvalidInput: a value out of range.
    """

    build: Any  # () -> nn.Module; other things are refused in one line
    loss: str | RowLosses = "cross_entropy"
    optimizer: str = "sgd"
    learning_rate: Number = 0.1
    schedule: str = "constant"
    momentum: Number = 0.0
    weight_decay: Number = 0.0
    batch_size: Number = 64
    epochs: Number = 10
    seed: Number = 0
    precision: str = "float32"
    labels: str = "auto"
    path: str | None = None
    code: str = ""
    options: str | None = None

    positional = True
    predictable = False

    def __post_init__(self) -> None:
        if not callable(self.build) or isinstance(self.build, nn.Module):
            raise InvalidInput(
                f"build is {type(self.build).__name__}, expected a function that makes the module, "
                "such as its class"
            )
        if not callable(self.loss) and self.loss not in LOSSES:
            known = ", ".join(LOSSES)
            raise InvalidInput(f"unknown loss {self.loss!r}; known: {known}, or a function")
        self._check_settings()

    def _check_settings(self) -> None:
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise InvalidInput(f"{name} is {value!r}; expected one of {', '.join(known)}")
        for name, least in (("batch_size", 1), ("epochs", 1), ("seed", 0)):
            object.__setattr__(self, name, whole_number(getattr(self, name), name, least=least))
        for name, most in (("learning_rate", None), ("momentum", 1), ("weight_decay", None)):
            value = float(real_number(getattr(self, name), name, least=0, most=most))
            object.__setattr__(self, name, value)
        if self.learning_rate == 0 or self.momentum == 1:
            raise InvalidInput("expected a learning_rate above zero and a momentum below one")
        if self.momentum and self.optimizer != "sgd":
            raise InvalidInput(
                f"momentum belongs to sgd; {self.optimizer} has its own, leave it out"
            )

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The path of a target of params.yaml, else `torch`."""
        return self.path or "torch"

    @property
    def regression(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether labels are numbers."""
        return self.labels == "numbers" or (self.labels == "auto" and self.loss == "mse")

    @property
    def probabilistic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether outputs are class scores."""
        return not self.regression

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-able settings; of a target with a path they rebuild it, and `code` guards that."""
        found = {name: getattr(self, name) for name in SETTINGS}
        if self.options is not None:
            found = json.loads(self.options)
        return {**found, "code": self.code} if self.path else found

    def of_code(self, path: str, code: str, *, options: str | None) -> "TorchTarget":
        """The target as that of an import path (own_code.py)."""
        return dataclasses.replace(self, path=path, code=code, options=options)

    def with_settings(self, **settings: Any) -> "TorchTarget":  # noqa: ANN401 - fields differ
        """The target with other settings.

        Raises:
            InvalidInput: an unknown setting, or a value out of range.
        """
        unknown = [name for name in settings if name not in SETTINGS]
        if unknown:
            raise InvalidInput(
                f"{self.name} has no setting {unknown[0]!r}; known: {', '.join(SETTINGS)}"
            )
        return dataclasses.replace(self, **settings)

    def advice(self, gradient: float) -> str:  # noqa: ARG002 - shared signature
        """Why training did not end finite, and what to do."""
        return "it does not end finite; lower the learning rate"

    def module_of(self, parameters: Float[Tensor, " parameters"]) -> nn.Module:
        """A new module of `build`, in evaluation mode, with these parameters."""
        module = self.build()
        parts = self.module.split(parameters)
        with torch.no_grad():
            for name, each in module.named_parameters():
                if name in parts:
                    each.copy_(parts[name])
        return module.eval()

    @property
    def module(self) -> Built:
        """The module that `build` makes, with its start."""
        return built(self.build, self.seed)

    @property
    def training(self) -> Recipe:
        """How training goes."""
        return Recipe(**{one.name: getattr(self, one.name) for one in fields(Recipe)})

    @property
    def working(self) -> torch.dtype:
        """The precision of training."""
        return torch.float32 if self.precision == "float32" else torch.float64

    def parameter_count(self, features: int, classes: int) -> int:
        """Number of trained parameters of the module; InvalidInput where it does not fit the data."""
        outputs = _fitting(self, features).outputs
        if self.regression != (classes == 0):
            expected = "numbers" if self.regression else "classes"
            raise InvalidInput(f"{self.name} is for labels that are {expected}; pass such labels")
        one = outputs == 1 and classes <= 2 and self.loss != "cross_entropy"
        if not one and (outputs != classes or self.loss == "binary_cross_entropy"):
            raise InvalidInput(
                f"the module of build() has {outputs} outputs, but there are {classes or 'no'} "
                f"classes and the loss {getattr(self.loss, '__name__', self.loss)}; expected one "
                "output a class, or one for two classes (binary_cross_entropy) and for numbers"
            )
        return self.module.size

    def scores(self, parameters: Parameters, features: Features) -> Scores:
        """Outputs of the module in evaluation mode."""
        models, rows = self._at_once(parameters, features)
        blocks = [
            torch.cat([self.module.scores(own, part) for part in features.split(rows)], 1)
            for own in parameters.split(models)
        ]
        return torch.cat(blocks) if blocks else self.module.scores(parameters, features)

    def losses(self, scores: Scores, labels: Labels) -> PerPoint:
        """Loss of each row."""
        return vmap(self.row_losses, in_dims=(0, None))(scores, labels)

    def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of each row, [rows], from one model's outputs [rows, outputs]."""
        own = labels.to(outputs) if labels.is_floating_point() else labels
        return self.loss(outputs, own) if callable(self.loss) else LOSSES[self.loss](outputs, own)

    def objective(
        self, parameters: Parameters, weights: Weights, points: Points
    ) -> Float[Tensor, " subsets"]:
        """Penalty plus mean loss; an empty subset has the penalty only."""
        losses = self.losses(self.scores(parameters, points.features), points.labels)
        data = (_shares(weights).to(losses) * losses).sum(1)
        return self._decay / 2 * parameters.square().sum(1) + data

    def gradient(self, parameters: Parameters, weights: Weights, points: Points) -> Parameters:
        """Gradient of `objective`."""
        return self._descended(parameters, weights, points)[0]

    def _descended(
        self, parameters: Tensor, weights: Tensor, points: Points
    ) -> tuple[Tensor, Tensor]:
        """Gradient and value of `objective`, some models and rows at a time."""
        module = self.module.own_module(training=False)

        def loss(theta: Tensor, rows: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
            outputs = self.module.outputs(self.module.split(theta), rows, module=module)
            return (self.row_losses(outputs, labels) * shares).sum()

        slopes = vmap(grad_and_value(loss), in_dims=(0, None, None, 0))
        features = points.features.to(parameters.dtype)
        models, rows = self._at_once(parameters, features)
        shares = _shares(weights).to(parameters)
        parts = zip(
            features.split(rows), points.labels.split(rows), shares.split(rows, 1), strict=True
        )
        gradient = self._decay * parameters
        value = self._decay / 2 * parameters.square().sum(1)
        for part, labels, own in parts:
            each = zip(parameters.split(models), own.split(models), strict=True)
            found = [slopes(theta, part, labels, share) for theta, share in each]
            gradient = gradient + torch.cat([slope for slope, _ in found])
            value = value + torch.cat([own for _, own in found])
        return gradient, value

    def _at_once(self, parameters: Tensor, features: Tensor) -> tuple[int, int]:
        """How many models and rows are computed at once."""
        each = _fitting(self, features.shape[1]).activations * parameters.element_size()
        rows = max(1, min(len(features), ACTIVATION_BYTES // each))
        return max(1, ACTIVATION_BYTES // (rows * each)), rows

    @property
    def _decay(self) -> float:
        return 0.0 if self.optimizer == "adamw" else self.weight_decay

    def bytes_per_subset(self, points: Points) -> int:  # noqa: ARG002 - shared signature
        """Size of one model's parameters."""
        return self.module.size * torch.empty(0, dtype=self.working).element_size()

    def prior(self, counts: Float[Tensor, "subsets groups"], features: int) -> Parameters:  # noqa: ARG002 - shared signature
        """The start: what training gives without a row."""
        return self.module.start.to(counts.device, self.working).repeat(len(counts), 1)

    def solver(self, points: Points) -> Solver:
        """Training of all models on the same batches; `converged` says that they ended finite."""
        recipe = self.training
        working = points.to(dtype=self.working)
        at_once = max(1, _chunk_bytes(points.features.device) // self._training_bytes(points))

        def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:  # noqa: ARG001 - fixed steps
            begin = self.module.start if start is None else start
            parts = zip(
                weights.split(at_once),
                begin.expand(len(weights), -1).split(at_once),
                strict=True,
            )
            trained = [
                train(recipe, self.module, working, own, first, row_losses=self.row_losses)
                for own, first in parts
            ]
            parameters = torch.cat(trained)
            slopes, objective = self._descended(parameters, weights, working)
            steps = recipe.steps(len(points.labels))
            return Solution(
                parameters=parameters,
                gradient_norm=slopes.abs().amax(1).to(torch.float64),
                objective=objective.to(torch.float64),
                iterations=torch.full((len(weights),), steps, device=weights.device),
                converged=torch.isfinite(parameters).all(1),
            )

        return solve

    def _training_bytes(self, points: Points) -> int:
        """Bytes of one model in training: parameters, gradients, states; rows, twice what layers make."""
        arrays = 3 + STATES[self.optimizer]
        rows = min(self.batch_size, len(points.labels))
        features = points.features.shape[1]  # of rows that are gathered for each model
        made = rows * (2 * _fitting(self, features).activations + features)
        size = torch.empty(0, dtype=self.working).element_size()
        return size * (arrays * self.module.size + made)


def _shares(weights: Tensor) -> Tensor:
    """w_i / sum of w; zero where all are."""
    total = weights.sum(1, keepdim=True)
    return weights / torch.where(total > 0, total, 1)


def _chunk_bytes(device: torch.device) -> int:
    """Bytes of the models that are trained together."""
    if device.type != "cuda":
        return CHUNK_BYTES
    return torch.cuda.mem_get_info(device)[0] // 2


@dataclass(frozen=True)
class _Fit:
    """What a trial of the module found: numbers of outputs, and of values made for a row."""

    outputs: int
    activations: int


@functools.lru_cache(maxsize=64)
def _fitting(target: TorchTarget, features: int) -> _Fit:
    """Outputs of the module on rows of so many features, and what its layers make of one.

    Raises:
        InvalidInput: the module fails on them, or the loss gives no number for each row.
    """
    outputs, made = trial(target.module, features=features)
    labels = torch.zeros(2) if target.regression else torch.zeros(2, dtype=torch.int64)
    try:
        found = target.row_losses(outputs, labels)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise InvalidInput(
            f"the loss fails on outputs {list(outputs.shape)} and two labels "
            f"({' '.join(str(error).split())[:200]}); expected outputs that it takes"
        ) from error
    if found.shape != (2,):
        raise InvalidInput(
            f"the loss gives shape {list(found.shape)} for two rows; expected one value a row, as "
            'with reduction="none"'
        )
    return _Fit(outputs.shape[1], max(1, made))

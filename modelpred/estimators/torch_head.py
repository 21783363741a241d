"""The last linear layer of a torch module as a family of target models; the rest of it is frozen.

    scores(x) = W phi(x) + b,   phi(x): the input of the layer, computed once for each row

With the data term sum_i w_i loss_i and 1/2 ||W||^2, the losses of torch have these families:

| loss of the module                 | family   | C for weight_decay and n rows |
|------------------------------------|----------|-------------------------------|
| cross_entropy, two or more outputs | softmax  | 1 / (weight_decay n)          |
| binary_cross_entropy, one output   | logistic | 1 / (weight_decay n)          |
| mse, one output                    | ridge    | 2 / (weight_decay n)          |

since weight_decay/2 ||W||^2 + mean loss, the objective of SGD's `weight_decay`, is weight_decay times the
family's objective with that C. The bias of the layer is not penalised. C is set by all rows of the fit and
is the same for every subset of them.
"""

import copy
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from modelpred.errors import InvalidInput
from modelpred.estimators.adapted import (
    AdaptedTorch,
    label_column,
    require_label_each,
    weight_column,
)
from modelpred.estimators.mapping import Mapped
from modelpred.estimators.preprocessing import Table
from modelpred.estimators.torch_rows import (
    Rows,
    moved_to,
    named_inputs,
    part_of,
    row_count,
    tensor_rows,
)
from modelpred.numbers import Number, whole_number

LossName = Literal["cross_entropy", "binary_cross_entropy", "mse"]
FAMILIES: dict[LossName, str] = {
    "cross_entropy": "softmax", "binary_cross_entropy": "logistic", "mse": "ridge",
}  # fmt: skip
LOSSES: dict[str, LossName] = {name: name for name in FAMILIES}
ENDS: tuple[Callable[[Tensor], Tensor], ...] = (
    nn.Identity(), nn.LogSoftmax(-1), nn.Softmax(-1), nn.Sigmoid(),
)  # fmt: skip
"""What a module may do with the scores of its last layer, since each keeps their order."""


@dataclass(frozen=True, eq=False, repr=False)
class TorchHead:
    """A torch module whose last linear layer is trained on subsets.

    Args:
        module: it is copied at the fit, and used in evaluation mode.
        layer: name of the last linear layer, as in `module.named_modules()`; None: the last
            `nn.Linear` there.
        loss: what the layer is trained with; None: cross_entropy for two or more outputs; for one
            output binary_cross_entropy if there are two different labels, else mse.
        C: weight of the data against the penalty; None: from weight_decay, else 1.
        weight_decay: as torch's optimisers have it, beside a loss that is a mean over rows.
        batch_size: rows that go through the module at once.
        device: where the frozen part runs; None: a GPU if there is one.

    Raises:
        InvalidInput: there is no such layer, or a setting that cannot be used.
    """

    module: Any  # other things than modules are refused in one line
    layer: str | None = None
    loss: str | None = None
    C: Number | None = None
    weight_decay: Number | None = None
    batch_size: Number = 256
    device: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.module, type) or not hasattr(self.module, "named_modules"):
            raise InvalidInput(f"module is {self.module!r}; expected an instance of nn.Module")
        if self.loss not in (None, *LOSSES):
            raise InvalidInput(f"unknown loss {self.loss!r}; known: {', '.join(LOSSES)}")
        if self.C is not None and self.weight_decay is not None:
            raise InvalidInput("C and weight_decay say the same; pass one of them")
        for name in ("C", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 < float(value) < math.inf:
                raise InvalidInput(f"{name} is {value}; expected a positive number")
        whole_number(self.batch_size, "batch_size", least=1)
        self.linear(self.module)

    def __repr__(self) -> str:
        """The class of the module, and its layer."""
        return f"TorchHead({type(self.module).__name__}, layer={self.name!r})"

    @property
    def name(self) -> str:
        """The name of the last linear layer."""
        if self.layer is not None:
            return self.layer
        found = [name for name, each in self.module.named_modules() if isinstance(each, nn.Linear)]
        if not found:
            raise InvalidInput(
                f"{type(self.module).__name__} has no nn.Linear; the last layer must be one"
            )
        return found[-1]

    def linear(self, module: nn.Module) -> nn.Linear:
        """The layer in this module or a copy of it.

        Raises:
            InvalidInput: there is none of this name, or it is no plain linear layer.
        """
        layers = dict(module.named_modules())
        linear = layers.get(self.name)
        if not isinstance(linear, nn.Linear):
            known = [name for name, each in layers.items() if isinstance(each, nn.Linear)]
            raise InvalidInput(
                f"layer {self.name!r} is no nn.Linear of the module; expected one of "
                f"{', '.join(map(repr, known)) or 'none that it has'}"
            )
        if parametrize.is_parametrized(linear):
            raise InvalidInput(
                f"layer {self.name!r} has a parametrization, which no family has; remove it"
            )
        return linear

    def strength(self, loss: LossName, *, rows: int) -> float:
        """C of the family for so many rows."""
        if self.weight_decay is None:
            return 1.0 if self.C is None else float(self.C)
        return (2 if loss == "mse" else 1) / (float(self.weight_decay) * rows)


@dataclass(frozen=True)
class FrozenPart:
    """The module up to its last layer, which maps rows to features.

    Attributes:
        head: the settings of `from_torch`.
        module: a copy of the module, in evaluation mode, on its device.
        names: names of the features.
    """

    head: TorchHead
    module: nn.Module
    names: tuple[str, ...]
    columns: None = None

    @property
    def count(self) -> int:
        """Number of features."""
        return len(self.names)

    def __call__(self, table: Table, *, what: str) -> NDArray[np.float64]:
        """Features [rows, features] of rows that the module takes.

        Raises:
            InvalidInput: the module fails on them, or gives features that are not finite.
        """
        rows = tensor_rows(table, like=self.head.linear(self.module).weight, what=what)
        features = torch.cat(list(self._batches(rows, what=what)))
        wrong = (~torch.isfinite(features)).nonzero()
        if len(wrong):
            raise InvalidInput(
                f"{what}: the module gives values that are not finite (first for row "
                f"{int(wrong[0, 0])}); expected finite features"
            )
        return features.to(torch.float64).numpy()

    @torch.no_grad()
    def _batches(self, rows: Rows, *, what: str) -> Iterator[Tensor]:
        size = int(self.head.batch_size)
        for first in range(0, row_count(rows), size):
            batch = part_of(rows, slice(first, first + size))
            count = row_count(batch)
            with _seen_by(self.head.linear(self.module)) as seen:
                output = self._output(batch, what=what)
            if len(seen) != 1 or seen[0][0].ndim != 2 or len(seen[0][0]) != count:
                raise InvalidInput(
                    f"{what}: layer {self.head.name!r} must be used once for a batch, with one row "
                    f"of features for each of its {count} rows; it was used {len(seen)} times"
                    + (f", with {list(seen[0][0].shape)}" if seen else "")
                )
            if first == 0:
                self._require_last(seen[0][1], output)
            yield seen[0][0].cpu()

    def _output(self, batch: Rows, *, what: str) -> Tensor:
        """Scores of a batch, by the module."""
        device = self.head.linear(self.module).weight.device
        moved = moved_to(batch, device)
        try:
            output: Any = self.module(**moved) if isinstance(moved, dict) else self.module(moved)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            shape = {name: list(each.shape) for name, each in named_inputs(batch).items()}
            raise InvalidInput(
                f"{what}: the module fails on a batch of shape {shape} "
                f"({' '.join(str(error).split())[:200]}); pass rows as its forward takes them"
            ) from error
        return output if isinstance(output, Tensor) else output.logits

    def _require_last(self, scores: Tensor, output: Tensor) -> None:
        """InvalidInput where the module does more with the layer's scores than one of ENDS."""
        flat = output.reshape(len(output), -1)
        same = (
            flat.shape == scores.shape
            and torch.allclose(end(scores), flat, rtol=1e-4, atol=1e-5, equal_nan=True)
            for end in ENDS
        )
        if not any(same):
            raise InvalidInput(
                f"the module does not end with layer {self.head.name!r}: its output is not what the "
                "layer gives, or the softmax or sigmoid of it; pass the last layer"
            )


@dataclass(frozen=True)
class AdaptedModule(AdaptedTorch):
    """A torch module whose last layer is trained on subsets.

    Attributes:
        preprocessing: the rest of the module.
        given: the settings of `from_torch`.
        target: the last layer as a family.
    """

    preprocessing: FrozenPart
    given: TorchHead
    target: Mapped

    def __str__(self) -> str:
        """The class of the module, and what became a family."""
        kind = type(self.given.module).__name__
        return f"layer {self.given.name!r} of {kind} as {self.target.family}, the rest frozen"

    def with_head(self, parameters: NDArray[np.float64]) -> nn.Module:
        """A copy of the module that was given, with these parameters in its last layer."""
        module = copy.deepcopy(self.given.module)
        linear = self.given.linear(module)
        table = torch.from_numpy(parameters).reshape(linear.out_features, -1).to(linear.weight)
        # New parameters: the old ones may be shared with other layers, which are frozen.
        linear.weight = nn.Parameter(table[:, :-1].clone())
        if _has_bias(linear):
            linear.bias = nn.Parameter(table[:, -1].clone())
        return module


def adapted_module(
    head: TorchHead,
    rows: Table,
    labels: Any,  # noqa: ANN401 - a column of any library
    *,
    sample_weight: Any,  # noqa: ANN401 - a column of any library, or None
    seed: int = 0,  # noqa: ARG001 - as `adapted`
    what: str,
) -> tuple[AdaptedModule, NDArray[np.float64]]:
    """The module as a family on features, and the features of the rows.

    Raises:
        InvalidInput: rows that the module does not take, or labels that do not fit its outputs.
    """
    column = label_column(labels)
    module = copy.deepcopy(head.module).eval().requires_grad_(requires_grad=False)
    device = head.device or ("cuda" if torch.cuda.is_available() else None)
    module = module if device is None else module.to(device)
    linear = head.linear(module)
    names = tuple(f"unit_{unit}" for unit in range(linear.in_features))
    frozen = FrozenPart(head, module, names)
    loss = _loss(head, linear.out_features, column)
    features = frozen(rows, what=what)
    require_label_each(column, features, what=what)
    factors = weight_column(sample_weight, rows=len(features))
    settings: dict[str, float | str] = {"C": head.strength(loss, rows=len(features))}
    if not _has_bias(linear):
        settings["intercept"] = "none"
    mapped = Mapped(head, FAMILIES[loss], settings, regression=loss == "mse", sample_weight=factors)
    return AdaptedModule(frozen, head, mapped), features


def _has_bias(layer: nn.Linear) -> bool:
    return "bias" in dict(layer.named_parameters(recurse=False))


def _loss(head: TorchHead, outputs: int, labels: NDArray[Any]) -> LossName:
    """The loss for these labels; InvalidInput where they do not fit the outputs of the layer."""
    classes = len(np.unique(labels))
    one: LossName = "binary_cross_entropy" if classes == 2 else "mse"
    usual: LossName = "cross_entropy" if outputs > 1 else one
    loss = usual if head.loss is None else LOSSES[head.loss]
    expected = outputs if loss == "cross_entropy" else 1
    if outputs != expected or (loss == "cross_entropy" and outputs < 2):
        raise InvalidInput(
            f"layer {head.name!r} has {outputs} output{'s'[: outputs != 1]}, which {loss} does not "
            "take; expected two or more for cross_entropy, else one"
        )
    needed = {"cross_entropy": outputs, "binary_cross_entropy": 2, "mse": classes}[loss]
    if classes != needed:
        raise InvalidInput(
            f"y has {classes} classes but layer {head.name!r} with {loss} is for {needed}; pass rows "
            "of each class, and no others"
        )
    return loss


@contextmanager
def _seen_by(layer: nn.Linear) -> Generator[list[tuple[Tensor, Tensor]]]:
    """The inputs and outputs of the layer while the context is open."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))

    hook = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()

"""Types of tensors in signatures, by the names of their axes."""

from jaxtyping import Float, Num
from torch import Tensor

Weights = Float[Tensor, "subsets points"]
Parameters = Float[Tensor, "subsets parameters"]
ParameterVector = Float[Tensor, " parameters"]
WeightVector = Float[Tensor, " points"]
PerPoint = Float[Tensor, "subsets points"]
Scores = Float[Tensor, "subsets points outputs"]
ScoresByOutput = Float[Tensor, "outputs subsets points"]
Features = Float[Tensor, "points features"]
Labels = Num[Tensor, " points"]

"""How much memory fitting a predictor takes, from its settings and the sizes of the pool.

The largest arrays of a fit are float32: the network's weights, with their gradients, two moments of the optimiser and the
best ones so far; and of each subset of a batch its weights, and for every learned step the scores of all points, which
the gradient needs again.
"""

from modelpred.memory import require_memory
from modelpred.predictor.config import PredictorConfig
from modelpred.predictor.network import LARGEST_LINEAR, SIZE_FEATURES
from modelpred.predictor.step_count import MOST_STEPS
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points

COPIES = 5  # of the network's weights
KEPT = 4  # arrays of a learned step that automatic differentiation keeps


def require_fit_memory(
    config: PredictorConfig, model: TargetModel, points: Points, *, subsets: int
) -> None:
    """Check that there is memory to fit a predictor.

    Raises:
        InvalidInput: there is less.
    """
    if config.network == "paper":
        return  # of a fixed size
    parameters = model.parameter_count(points.features.shape[1], points.classes)
    steps = MOST_STEPS if config.steps is None else config.steps
    weights = _correction_size(parameters, config.width, inputs=parameters) + steps * (
        _correction_size(parameters, config.step_width, inputs=3 * parameters)
    )
    scores = len(points.features) * max(1, points.classes)
    each = len(points.features) + (1 + steps) * KEPT * (scores + parameters)
    each += config.width + steps * config.step_width
    batch = min(config.schedule().batch, subsets)
    require_memory(
        4 * (COPIES * weights + batch * each),
        what=(
            f"fitting a predictor of {parameters:,} parameters (predictor.width {config.width:,}, "
            f"step_width {config.step_width:,}, up to {steps:,} steps, batch {batch:,})"
        ),
    )


def _correction_size(parameters: int, width: int, *, inputs: int) -> int:
    """Weights of `network.Correction`."""
    seen = inputs + SIZE_FEATURES
    linear = seen * parameters if seen * parameters <= LARGEST_LINEAR else 0
    return seen * width + width + width * parameters + parameters + linear

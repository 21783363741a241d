"""Target models: what they are, and how thousands of subsets are trained at once."""

from modelpred.targets.families import TargetsConfig, target_model
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points, dataset_points, dataset_test_points, points_of
from modelpred.targets.torch_target import TorchTarget
from modelpred.targets.training import TrainedTargets, train_targets

__all__ = [
    "Points",
    "TargetModel",
    "TargetsConfig",
    "TorchTarget",
    "TrainedTargets",
    "dataset_points",
    "dataset_test_points",
    "points_of",
    "target_model",
    "train_targets",
]

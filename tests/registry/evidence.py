"""Gates, and held-out errors that they let through and do not."""

from modelpred.registry import GatesConfig

GATES = GatesConfig(
    designs=("uniform",),
    parameter_error=0.2,
    beats=("influence",),
    calibration=None,
    champion=False,
)


def errors(low: float, high: float) -> dict[str, dict[str, float]]:
    """A method's held-out error with its interval, on uniform subsets."""
    middle = (low + high) / 2
    measures = {
        "parameter_error": middle,
        "parameter_error_low": low,
        "parameter_error_high": high,
        "subsets": 50.0,
        "left_out": 0.0,
    }
    return {"uniform": measures}


GOOD = {"predictor": errors(0.1, 0.12), "influence": errors(0.3, 0.4)}
POOR = {"predictor": errors(0.3, 0.5), "influence": errors(0.3, 0.4)}

"""What MLflow runs to load a registered predictor: weights [subsets, points] -> parameters [subsets, parameters].

MLflow copies this file beside the predictor's own files (safetensors and JSON) and runs it when the model is loaded
("models from code"); nothing is unpickled. It needs mlflow, torch and this package.
"""

from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from modelpred.predictor import Predictor, read_predictor


@final
class ServedPredictor(PythonModel):
    """A fitted predictor behind MLflow's `predict`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the predictor, with its sizes and shapes checked."""
        self._predictor: Predictor = read_predictor(Path(context.artifacts["predictor"]))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  (MLflow's own has no types)
        self,
        context: PythonModelContext,  # noqa: ARG002  (MLflow hands it to every model)
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """The predicted parameters, float64 [subsets, parameters].

        Args:
            context: where MLflow keeps the model's files.
            model_input: how often each subset holds each point, [subsets, points], finite and not negative.
            params: `refine`, the Newton steps to polish the prediction with; default 0.

        Raises:
            InvalidInput: weights or `refine` that are not such.
        """
        weights = torch.from_numpy(np.array(model_input, dtype=np.float64))
        refine = float((params or {}).get("refine", 0.0))
        return self._predictor.predict(weights, refine=refine).numpy()


set_model(ServedPredictor())

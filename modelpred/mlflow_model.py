"""The model that MLflow loads for a registered predictor: maps weights [subsets, points] to parameters.

MLflow copies this file beside the predictor's own files (safetensors and JSON) and runs it when the model is loaded
("models from code"); nothing is unpickled. It needs mlflow, torch and this package.
"""

import os
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from modelpred.errors import InvalidInput
from modelpred.predictor import read_predictor
from modelpred.predictor.request_handler import (
    ALL_STAGES,
    REPUBLISH,
    SERVING_LIMITS,
    Limits,
    RequestHandler,
    read_test_points,
)
from modelpred.sealed import advice

# `mlflow models serve` sets it; whoever loads the model in Python owns the memory that a question takes.
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


@final
class ServedPredictor(PythonModel):
    """A fitted predictor behind MLflow's `predict`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the predictor, with its sizes and shapes checked."""
        folder = Path(context.artifacts["predictor"])
        with advice(REPUBLISH):
            self._predictor = read_predictor(folder)
            self._test_points = read_test_points(folder, self._predictor)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  (MLflow's own has no types)
        self,
        context: PythonModelContext,  # noqa: ARG002  (MLflow hands it to every model)
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray | list[dict[str, Any]]:
        """The predicted parameters, float64 [subsets, parameters]; with `without` a record for each list of rows.

        Args:
            context: where MLflow keeps the model's files.
            model_input: how often each subset holds each point, [subsets, points], finite and not negative.
            params: `refine`, the Newton steps to polish the prediction with, default 0; `stages`, after how many of
                the predictor's stages to stop, default -1 for all; `without`, lists of training rows to leave out, as
                {"rows": [["3", "14"], ["7"]]}, each answered with parameters, loss and certificate.

        Raises:
            MlflowException: a question that is not such; its message says why, and over HTTP it is a 400.
        """
        wanted = params or {}
        weights = torch.from_numpy(np.array(model_input, dtype=np.float64))
        limits = SERVING_LIMITS if os.environ.get(SERVING) == "true" else Limits()
        answers = RequestHandler(self._predictor, test_points=self._test_points, limits=limits)
        refine, stages = float(wanted.get("refine", 0.0)), int(wanted.get("stages", ALL_STAGES))
        lists = (wanted.get("without") or {}).get("rows") or []
        try:
            asked = None if stages == ALL_STAGES else stages
            if len(lists):
                left_out = [list(names) for names in lists]
                return answers.without(weights, left_out, refine=refine, stages=asked)
            return answers.parameters(weights, refine=refine, stages=asked).numpy()
        except InvalidInput as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


set_model(ServedPredictor())

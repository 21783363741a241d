"""Estimators of scikit-learn as JSON, and back.

An estimator is written as the name of its class, its parameters, and the attributes that its fit left:

    {"class": "StandardScaler", "params": {"with_mean": true, ...}, "fitted": {"mean_": ...}}

Only classes listed here are written and read. A file names a class, and never code: what is read is
built of numbers, texts, lists and arrays, so that nothing in a file is executed or unpickled.
"""

import math
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from modelpred.errors import InvalidInput
from modelpred.estimators.adapted import Adapted, Boxed
from modelpred.estimators.mapping import Estimator, Mapped
from modelpred.estimators.preprocessing import Preprocessing, split

Json: TypeAlias = Any  # what json.dumps takes

_CLASSES = {
    "sklearn.compose": ("ColumnTransformer",),
    "sklearn.decomposition": ("PCA", "TruncatedSVD"),
    "sklearn.feature_selection": ("VarianceThreshold",),
    "sklearn.impute": ("MissingIndicator", "SimpleImputer"),
    "sklearn.linear_model": (
        *("LogisticRegression", "LogisticRegressionCV", "Ridge", "RidgeCV"),
        *("RidgeClassifier", "RidgeClassifierCV"),
    ),
    "sklearn.pipeline": ("Pipeline",),
    "sklearn.preprocessing": (
        *(
            "FunctionTransformer",
            "KBinsDiscretizer",
            "MaxAbsScaler",
            "MinMaxScaler",
            "Normalizer",
            "OneHotEncoder",
        ),
        *("OrdinalEncoder", "PolynomialFeatures", "PowerTransformer", "QuantileTransformer"),
        *("RobustScaler", "StandardScaler"),
    ),
    "sklearn.svm": ("LinearSVC",),
}
WRITTEN = {name: module for module, names in _CLASSES.items() for name in names}
_KINDS = "biufUO"  # of arrays: truth values, whole numbers, floats, texts, mixed
_TYPES: dict[str, type] = {"float64": np.float64, "float32": np.float32, "int64": np.int64}


def estimator_document(estimator: Estimator) -> Json:
    """The estimator as JSON, fitted or not.

    Raises:
        InvalidInput: a class that is not written, or a setting that holds code.
    """
    own = type(estimator)
    name = own.__name__
    if own.__module__.partition(".")[0] != "sklearn" or name not in WRITTEN:
        raise InvalidInput(
            f"{name} is not saved, because it may hold code; saved are {', '.join(sorted(WRITTEN))}"
        )
    params = estimator.get_params(deep=False)
    fitted = {key: value for key, value in vars(estimator).items() if key not in params}
    return {
        "class": name,
        "params": {key: _written(value, f"{name}({key}=)") for key, value in params.items()},
        "fitted": {key: _written(value, f"{name}.{key}") for key, value in fitted.items()},
    }


def read_estimator(document: Json) -> Estimator:
    """The estimator that `estimator_document` wrote.

    Raises:
        InvalidInput: it is no such document.
    """
    try:
        name, params, fitted = document["class"], document["params"], document["fitted"]
        if set(document) != {"class", "params", "fitted"} or name not in WRITTEN:
            raise InvalidInput(f"{name!r} is no class that is read")
        own = getattr(import_module(WRITTEN[name]), name)
        estimator = own(**{key: _read(value) for key, value in params.items()})
        for key, value in fitted.items():
            if not str(key).isidentifier() or "__" in key or callable(getattr(own, key, None)):
                raise InvalidInput(f"{name} has no fitted attribute {key!r}")
            setattr(estimator, key, _read(value))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidInput(f"an estimator cannot be read ({error})") from error
    return estimator


def adapted_document(adapted: Adapted) -> Json:
    """An estimator with its fitted preprocessing and its family as JSON.

    Raises:
        InvalidInput: a black box, or a step that may hold code.
    """
    target, preprocessing = adapted.target, adapted.preprocessing
    if isinstance(target, Boxed):
        raise InvalidInput(
            f"{type(target.estimator).__name__} is a black box, whose trained models have no safe file "
            "format; save what you need of it, such as values or suspects"
        )
    return {
        "scikit-learn": _version(),
        "given": estimator_document(adapted.given),
        "steps": None if preprocessing.steps is None else estimator_document(preprocessing.steps),
        "columns": None if preprocessing.columns is None else list(preprocessing.columns),
        "count": preprocessing.count,
        "names": list(preprocessing.names),
        "family": target.family,
        "settings": target.settings,
        "regression": target.regression,
        "divisor": target.divisor,
        "chosen": _written(target.chosen, type(target.estimator).__name__),
    }


def read_adapted(document: Json) -> Adapted:
    """What `adapted_document` wrote.

    Raises:
        InvalidInput: it is no such document, or of another version of scikit-learn.
    """
    try:
        written = document["scikit-learn"]
        if written != _version():
            raise InvalidInput(
                f"it was written with scikit-learn {written}, and this is {_version()}; install that "
                "version, or fit and save again"
            )
        given, steps, columns = document["given"], document["steps"], document["columns"]
        estimator = read_estimator(given)
        preprocessing = Preprocessing(
            None if steps is None else read_estimator(steps),
            None if columns is None else tuple(columns),
            document["count"],
            tuple(document["names"]),
        )
        mapped = Mapped(
            split(estimator)[1],
            document["family"],
            document["settings"],
            regression=document["regression"],
            divisor=document["divisor"],
            chosen=_read(document["chosen"]),
        )
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidInput(f"an estimator cannot be read ({error})") from error
    return Adapted(estimator, mapped, preprocessing)


def _version() -> str:
    """Version of scikit-learn without its patch, which changes no fitted attribute."""
    import sklearn  # noqa: PLC0415 - slow to import

    return ".".join(sklearn.__version__.split(".")[:2])


def _written(value: object, what: str) -> Json:
    """A value as JSON; one that JSON lacks is an entry under the name of its kind."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list):
        return _all_written(cast("list[object]", value), what)
    for kind, own, content in _WRITERS:
        if isinstance(value, own):
            return {kind: content(value, what)}
    if hasattr(value, "get_params") and not isinstance(value, type):
        return {"estimator": estimator_document(value)}
    raise InvalidInput(f"{what} holds a {type(value).__name__}, which is not saved")


def _all_written(values: Iterable[object], what: str) -> list[Json]:
    return [_written(each, what) for each in values]


def _written_array(array: NDArray[Any], what: str) -> Json:
    if array.dtype.kind not in _KINDS:
        raise InvalidInput(f"{what} holds {array.dtype}, which is not saved")
    return {
        "dtype": array.dtype.str.lstrip("<|="),
        "shape": list(array.shape),
        "values": _all_written(array.ravel().tolist(), what),
    }


def _written_type(value: type, what: str) -> str:
    if value not in _TYPES.values():
        raise InvalidInput(f"{what} holds the class {value.__name__}, which is not saved")
    return value.__name__


_WRITERS: tuple[tuple[str, type, Callable[[Any, str], Json]], ...] = (
    ("scalar", np.generic, lambda value, what: _written_array(np.asarray(value), what)),
    ("float", float, lambda value, _: repr(value)),
    ("array", np.ndarray, _written_array),
    ("dtype", np.dtype, lambda value, _: value.str.lstrip("<|=")),
    ("tuple", tuple, _all_written),
    ("dict", dict, lambda value, what: [_all_written(item, what) for item in value.items()]),
    (
        "slice",
        slice,
        lambda value, what: _all_written((value.start, value.stop, value.step), what),
    ),
    ("type", type, _written_type),
)


def _read(value: Json) -> Any:  # noqa: ANN401 - whatever was written
    if isinstance(value, list):
        return [_read(each) for each in cast("list[Json]", value)]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = cast("dict[str, Json]", value).items()
    if kind not in _READERS:
        raise InvalidInput(f"an estimator holds an unknown {kind!r}")
    return _READERS[kind](content)


def _read_array(content: Json) -> NDArray[Any]:
    dtype = _read_dtype(content["dtype"])
    values = [_read(each) for each in content["values"]]
    if len(values) != math.prod(content["shape"]):
        raise InvalidInput(f"an array of an estimator has {len(values)} values of {dtype}")
    array = np.empty(len(values), dtype)
    array[:] = values
    return array.reshape(content["shape"])


def _read_dtype(content: Json) -> np.dtype[Any]:
    dtype = np.dtype(str(content))
    if dtype.kind not in _KINDS:
        raise InvalidInput(f"an estimator holds {dtype}, which is not read")
    return dtype


_READERS: dict[str, Callable[[Json], Any]] = {
    "float": float,
    "scalar": lambda content: _read_array(content)[()],
    "array": _read_array,
    "dtype": _read_dtype,
    "tuple": lambda content: tuple(_read(each) for each in content),
    "dict": lambda content: {_read(key): _read(each) for key, each in content},
    "slice": lambda content: slice(*map(_read, content)),
    "type": _TYPES.__getitem__,
    "estimator": read_estimator,
}

"""Arrays are read for what they hold, whatever their layout, byte order or mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.targets import target_model, train_targets

DRAWN = np.random.default_rng(0)
FEATURES = DRAWN.normal(size=(20, 3)).round(3)
LABELS = (FEATURES[:, 0] + DRAWN.normal(size=20) > 0).astype(np.int64)
WEIGHTS = DRAWN.integers(0, 3, size=(4, 20)).astype(np.float64)
WEIGHTS[:, :2] = 1


def reversed_view(array):
    return np.flip(np.flip(array).copy())


def strided(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), dtype=array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def read_only(array):
    copied = array.copy()
    copied.flags.writeable = False
    return copied


LAYOUTS = {
    "as it is": lambda array: array,
    "by columns": np.asfortranarray,
    "reversed view": reversed_view,
    "strided": strided,
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "other byte order, reversed": lambda a: reversed_view(a.astype(a.dtype.newbyteorder())),
    "masked, nothing hidden": lambda array: np.ma.array(array, mask=np.zeros(array.shape, bool)),
    "half as long": lambda a: a.astype(np.int32 if a.dtype.kind == "i" else np.float32),
}
layouts = st.sampled_from(sorted(LAYOUTS))


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@given(layouts, layouts, layouts)
@settings(max_examples=80, deadline=None)
def test_the_layout_of_arrays_changes_nothing(of_features, of_labels, of_weights):
    features = FEATURES.astype(np.float32).astype(np.float64)
    model = target_model("logistic")
    expected = train_targets(model, features, LABELS, WEIGHTS)
    for array, layout in ((features, of_features), (LABELS, of_labels), (WEIGHTS, of_weights)):
        np.testing.assert_array_equal(LAYOUTS[layout](array), array)
    found = train_targets(
        model,
        LAYOUTS[of_features](features),
        LAYOUTS[of_labels](LABELS),
        LAYOUTS[of_weights](WEIGHTS),
    )
    np.testing.assert_array_equal(found.parameters, expected.parameters)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_lies_under_a_mask_is_missing(which):
    arrays = [FEATURES, LABELS.astype(np.float64), WEIGHTS]
    mask = np.zeros(arrays[which].shape, bool)
    mask.flat[3] = True
    arrays[which] = np.ma.array(arrays[which], mask=mask)
    with pytest.raises(InvalidInput, match="finite"):
        train_targets(target_model("ridge"), *arrays)

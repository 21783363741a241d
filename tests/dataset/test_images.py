"""MNIST's features: a network that learns, always the same one, and never from the table's rows."""

import hashlib

import numpy as np
import polars as pl
import pytest
import torch

from modelpred.dataset.images import Training, answers, mnist_table, trained_network
from modelpred.dataset.tables import BUILTIN_FOLDER

TRAINED, KEPT = 40, 20


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The first images of MNIST."""
    path = tmp_path_factory.mktemp("mnist") / "mnist.parquet"
    pl.read_parquet(BUILTIN_FOLDER / "mnist.parquet").head(TRAINED + KEPT).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def table(file):
    return mnist_table(path=file, trained_on=TRAINED)


def bright_and_dark(count):
    """Images that are told apart by how bright they are."""
    digits = torch.arange(count) % 2
    noise = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return 0.3 * noise + 0.7 * digits[:, None, None, None], digits


def test_the_file_is_the_licensed_one_with_its_note():
    content = (BUILTIN_FOLDER / "mnist.parquet").read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith("77649bd37a16f1b0")
    note = (BUILTIN_FOLDER / "ATTRIBUTION").read_text()
    assert "mnist.parquet" in note
    assert "CC BY-SA 3.0" in note


def test_the_network_learns():
    images, digits = bright_and_dark(96)
    network = trained_network(images[:64], digits[:64], Training(epochs=4, batch=16))
    features, right = answers(network, images[64:], digits[64:])
    assert features.shape == (32, 128)
    assert features.min() < 0  # before the ReLU
    assert right == 1


def test_the_table_holds_the_images_that_were_not_trained_on(table, file):
    images = pl.read_parquet(file)
    assert table.rows["row_id"].to_list() == [str(row) for row in range(TRAINED, TRAINED + KEPT)]
    assert table.rows["digit"].to_list() == images["label"].to_list()[TRAINED:]
    assert len(table.feature_names) == 128
    assert "CC BY-SA 3.0" in table.attribution
    assert "trained on 40 other images" in table.attribution


def test_the_same_images_give_the_same_table_and_threads_stay_as_they_were(table, file):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        again = mnist_table(path=file, trained_on=TRAINED)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert again.rows.equals(table.rows)


def test_changed_images_of_the_table_leave_the_network_as_it_was(table, file, tmp_path):
    images = pl.read_parquet(file)
    other = tmp_path / "other.parquet"
    pl.concat([images.head(TRAINED + 1), images.head(KEPT - 1)]).write_parquet(other)
    changed = mnist_table(path=other, trained_on=TRAINED)
    first = table.rows.head(1).select(table.feature_names).to_numpy()
    # The kept images are answered in one block, whose products round by its content's place.
    np.testing.assert_allclose(
        changed.rows.head(1).select(table.feature_names).to_numpy(), first, rtol=0, atol=1e-5
    )

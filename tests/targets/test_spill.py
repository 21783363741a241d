"""Room for tensors larger than memory."""

import gc

import pytest
import torch

from modelpred.targets import spill
from modelpred.targets.spill import allocate, gather_rows


@pytest.fixture(params=["in memory", "in a file"])
def somewhere(request, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if request.param == "in a file":
        monkeypatch.setattr(spill, "LARGEST", 0)
    monkeypatch.setattr(spill, "BLOCK_BYTES", 24)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32, torch.bool])
def test_a_room_keeps_what_is_put_there_and_leaves_no_file(somewhere, dtype):
    found = allocate((5, 3), dtype)
    values = torch.arange(15).reshape(5, 3).to(dtype)
    found[:] = values
    gc.collect()
    assert torch.equal(found, values)
    assert list(somewhere.iterdir()) == []
    assert allocate((0, 3), dtype).shape == (0, 3)


def test_rows_are_taken_by_place_and_by_choice(somewhere):
    table = torch.arange(20.0, dtype=torch.float64).reshape(10, 2)
    places = torch.tensor([7, 1, 1])
    assert torch.equal(gather_rows(table, places), table[places])
    chosen = table[:, 0] > 7
    found = gather_rows(table, chosen, dtype=torch.float32)
    assert torch.equal(found, table[chosen].float())
    assert gather_rows(table, chosen | True) is table


def test_no_space_is_an_error_that_says_so(somewhere, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr(spill, "LARGEST", 0)
    with pytest.raises(OSError, match="No space left"):
        allocate((5, 3), torch.uint8)

"""Many small matrices: sums of outer products, inverses, products with vectors."""

import pytest
import torch

from modelpred.targets.matrices import OuterProducts, applied, inverses


def positive_definite(rows: int, size: int) -> torch.Tensor:
    parts = torch.randn(
        rows, size, 2 * size, generator=torch.Generator().manual_seed(size), dtype=torch.float64
    )
    return parts @ parts.mT + torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 16, 17, 31, 58, 65])
def test_inverses_undo_their_matrices(size):
    matrices = positive_definite(3, size)
    found = inverses(matrices)
    torch.testing.assert_close(
        found @ matrices, torch.eye(size, dtype=torch.float64).expand(3, -1, -1),
        rtol=0, atol=1e-9,
    )  # fmt: skip
    assert torch.equal(inverses(matrices, out=torch.empty_like(matrices)), found)


@pytest.mark.parametrize("size", [5, 40])
def test_a_matrix_that_is_not_positive_definite_has_no_inverse_and_spoils_no_other(size):
    matrices = positive_definite(3, size)
    alone = inverses(matrices[:1])
    matrices[1, -1, -1] = -1
    found = inverses(matrices)
    assert torch.equal(found[0], alone[0])
    assert not bool(torch.isfinite(found[1]).all())
    assert bool(torch.isfinite(found[2]).all())


def test_inverses_of_weighted_outer_products_do_not_depend_on_how_many_are_asked(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 20, generator=generator, dtype=torch.float64)
    weights = torch.rand(7, 30, generator=generator, dtype=torch.float64)
    penalty = torch.rand(7, 20, generator=generator, dtype=torch.float64)
    expected = torch.linalg.inv(
        torch.einsum("sn,ni,nj->sij", weights, rows, rows) + torch.diag_embed(penalty)
    )
    products = OuterProducts.of(rows)
    torch.testing.assert_close(products.inverses(weights, penalty), expected)
    monkeypatch.setattr("modelpred.targets.matrices.MATRIX_BYTES", 1)
    one_by_one = products.inverses(weights, penalty)
    torch.testing.assert_close(one_by_one, expected)
    vectors = torch.randn(7, 20, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        applied(one_by_one, vectors), (expected @ vectors[..., None])[..., 0]
    )

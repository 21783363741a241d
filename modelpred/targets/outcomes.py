"""What became of the subsets: how many have a trained model, by what they are for and design."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from modelpred.targets.bank import Bank
from modelpred.wording import counted

COUNTED = ("subsets", "degenerate", "not_converged")


def bank_counts(bank: Bank) -> pl.DataFrame:
    """A row for each subset: role, design, and a one in each of the columns that it counts in."""
    return pl.DataFrame(
        {
            "role": pl.Series(bank.roles, dtype=pl.String),
            "design": pl.Series(bank.designs, dtype=pl.String),
            "subsets": pl.Series([1] * len(bank.ids), dtype=pl.Int64),
            "degenerate": bank.degenerate.numpy().astype(np.int64),
            "not_converged": (~bank.converged.numpy()).astype(np.int64),
        }
    )


def outcomes(counts: pl.DataFrame, redrawn: Mapping[str, int]) -> pl.DataFrame:
    """A row for each role and design: counts of subsets.

    Args:
        counts: columns role, design, subsets, degenerate and not_converged, to be added up
            (`bank_counts`, `Collected.counts`).
        redrawn: number of subsets that were drawn again because they lacked a class, by role and
            design (`Subsets.redrawn`).

    Returns:
        Columns role, design, subsets, redrawn, degenerate (a class is still missing, so that there
        is no optimum) and not_converged.
    """
    sums = counts.group_by("role", "design", maintain_order=True).agg(pl.col(COUNTED).sum())
    kinds = [f"{role}-{design}" for role, design in sums.select("role", "design").iter_rows()]
    again = pl.Series("redrawn", [redrawn.get(kind, 0) for kind in kinds], dtype=pl.Int64)
    columns = ("role", "design", "subsets", "redrawn", "degenerate", "not_converged")
    return sums.with_columns(again).select(columns)


def lost(found: pl.DataFrame) -> str:
    """One line on what was drawn again and what has no optimum; empty where nothing."""
    total, redrawn, degenerate = (
        int(found[column].sum()) for column in ("subsets", "redrawn", "degenerate")
    )
    if not redrawn and not degenerate:
        return ""
    kinds = [
        f"{count:,} of {subsets:,} {role} {design}"
        for role, design, subsets, count in found.select(
            "role", "design", "subsets", "degenerate"
        ).iter_rows()
        if count
    ]
    still = f"{counted(degenerate, 'subset')} still lack one and have no optimum"
    return f"{redrawn:,} of {total:,} subsets lacked a class and were drawn again, " + (
        f"{still} ({', '.join(kinds)})" if degenerate else "none lacks one now"
    )

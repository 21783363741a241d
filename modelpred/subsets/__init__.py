"""Subsets of the points to train targets on, as rows of weights [subsets, points].

A weight says how often a point is taken: 0 or 1, or a count in a bootstrap resample. Designs,
for N points:

    leave_one_out  one point removed
    addition       the first N/2 points and k of the others, k uniform in [1, N - N/2]
    deletion       k points removed, k uniform in [1, N/2]
    uniform        size uniform in [max(3, N/10), N], members uniform given the size
    prefix         the first 1, 2, ..., N points of a random order, order after order
    bootstrap      N draws with replacement

A subset that lacks a class has no model to learn from. With the labels of the points, such a subset
is drawn again on the condition that every class is in it (`modelpred.subsets.classes`).

Every block of drawings has a generator of its own, seeded by (seed, "subsets", role, design,
block), so that more subsets keep the earlier ones. No subset is in two roles or twice
in one: the held-out roles (test, validation) draw first, and what would repeat is drawn again in
its place while nothing else moves.

Of a pool that grew (`Earlier`), the fit keeps the subsets that were drawn of its rows before, except
where they take a row that went or changed, and a share of as many is drawn of all rows anew. The
held-out roles are drawn of all rows.
"""

from modelpred.subsets.config import DESIGNS, ROLES, Counts, Design, Role, SubsetsConfig
from modelpred.subsets.designs import DRAWN_TOGETHER, draw
from modelpred.subsets.drawing import draw_subsets
from modelpred.subsets.files import read_subsets, subsets_table, write_subsets
from modelpred.subsets.rows import Subsets, blocks

__all__ = [
    "DESIGNS",
    "DRAWN_TOGETHER",
    "ROLES",
    "Counts",
    "Design",
    "Role",
    "Subsets",
    "SubsetsConfig",
    "blocks",
    "draw",
    "draw_subsets",
    "read_subsets",
    "subsets_table",
    "write_subsets",
]

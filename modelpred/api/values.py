"""Values of rows and selections of rows for a fitted ModelPred.

The estimators are those of the studies (semivalues.py, selection.py).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelpred.api.inputs import array_of
from modelpred.api.predicted_values import (
    FEWEST_CHECKED,
    TRIED,
    Checks,
    Trial,
    checked_orders,
    corrected,
    trial_of,
)
from modelpred.dataset.grouping import suggestion
from modelpred.engine import Mixed
from modelpred.errors import InvalidInput
from modelpred.numbers import MOST_DRAWS, Number, checked_section, seed_number, whole_number
from modelpred.studies.context import StudyContext, groups_of
from modelpred.studies.direct_removals import can_remove_directly
from modelpred.studies.greedy_selection import Quota, no_quota, own_shares
from modelpred.studies.row_gains import has_row_gains
from modelpred.studies.sampler_choice import budget_of
from modelpred.studies.samplers import EXACT_UP_TO
from modelpred.studies.sampling import SamplerName, Utility
from modelpred.studies.selection import greedy_selections
from modelpred.studies.semivalues import ENUMERABLE, Values
from modelpred.studies.utility import Scoring, UtilityName, game_of, require_utility
from modelpred.studies.valuation import JointGame, ValuationConfig, value_table, values_of
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points

log = logging.getLogger(__name__)

FIXED = Checks()
SHORTCUTS = ("gains", "direct")  # samplers whose models are always retrained
LOW = 0.5  # reliability below which a ranking of rows says little
GAINS_AT_ONCE = 1000  # models of the gains of a selection
STRIDE = 8  # one in this many of the remaining rows is removed before they are scored again
Groups = Sequence[Any] | NDArray[Any] | pl.Series


def estimated_values(
    context: StudyContext,
    *,
    groups: Groups | None,
    utility: str | Scoring,
    seed: Number,
    settings: dict[str, Any],
    checks: Checks = FIXED,
) -> tuple[pl.DataFrame, Values]:
    """Return value, standard error and rank of every row or group of rows, and the estimate behind them.

    Args:
        context: the fit, its subject, and the rows to score on.
        groups: the group of each row; None: value single rows.
        utility: the utility of a model.
        seed: of the draws.
        settings: of `ValuationConfig`.
        checks: how predicted values are sampled.

    Raises:
        InvalidInput: a setting or the groups are invalid.
    """
    valued = _valued(context, groups=groups, utility=utility, seed=seed, settings=settings)
    values = _estimated(valued, context, checks)
    players = valued.players
    bound = [] if values.bounds is None else ["bound"]
    columns = (*players.columns, "value", "standard_error", *bound, "rank")
    table = value_table(players, values).select(columns)
    _report_reliability(values, players=players.height, rows=context.pool)
    return table, values


def values_trial(
    context: StudyContext,
    *,
    groups: Groups | None,
    utility: str | Scoring,
    seed: Number,
    settings: dict[str, Any],
) -> Trial | None:
    """Return what a trial tells about predicted values; None if it would cost too much or tells nothing.

    Arguments as of `estimated_values`.
    """
    valued = _valued(context, groups=groups, utility=utility, seed=seed, settings=settings)
    if valued.config.permutations < TRIED * FEWEST_CHECKED:
        return None
    return trial_of(
        valued.game,
        valued.exact,
        sampled=lambda game, orders: _by_orders(valued, context, game, orders, block=2),
    )


@dataclass(frozen=True)
class _Valued:
    """The checked arguments of values: the players, the game by the subject and by retraining."""

    config: ValuationConfig
    players: pl.DataFrame
    game: Utility
    exact: Utility


def _valued(
    context: StudyContext,
    *,
    groups: Groups | None,
    utility: str | Scoring,
    seed: Number,
    settings: dict[str, Any],
) -> _Valued:
    most = {"permutations": whole_number(settings["permutations"], "permutations", most=MOST_DRAWS)}
    config = checked_section(
        ValuationConfig,
        {**settings, **most, "seed": seed_number(seed)},
        names={"semivalue": "method"},
    )
    score = _known_utility(utility, context) if isinstance(utility, str) else utility
    game = game_of(context.refits[context.subject], context, utility=score)
    exact = game_of(context.truth, context, utility=score)
    if groups is None:
        return _Valued(config, pl.DataFrame({"row_id": list(context.row_ids)}), game, exact)
    names, members = groups_of(_with_rows(context, groups), column="groups", key="groups")
    sizes = members.sum(dim=1, dtype=torch.int64).numpy()
    players = pl.DataFrame({"group": names, "rows": sizes})
    return _Valued(config, players, JointGame(game, members), JointGame(exact, members))


def _report_reliability(values: Values, *, players: int, rows: int) -> None:
    """Log how far the ranking would repeat; a warning if a ranking of many rows hardly would."""
    reliability = values.reliability
    if rows <= EXACT_UP_TO or not np.isfinite(reliability):
        return
    text = f"values of {players:,} players: a second estimate would correlate {reliability:.2f} with them"
    if reliability < LOW:
        log.warning("%s; raise permutations, or value groups of rows", text)
    else:
        log.info("%s", text)


def suggest_groups(fitted_rows: pl.DataFrame, names: Sequence[str]) -> None:
    """Log which columns look like groups of rows, whose values are more certain than those of rows."""
    if found := suggestion(fitted_rows, names):
        log.warning("%s: pass such a column as groups=", found)


def shortcut_of(
    model: TargetModel,
    points: Points,
    utility: object,
    *,
    groups: Groups | None,
    method: str,
    sampler: object,
) -> SamplerName | None:
    """Return the sampler that needs only a few models, which are trained, if values will use one.

    That is `gains` of all rows by each model, or `direct` answers for leave-one-out.

    Args:
        model: the family.
        points: the training rows.
        utility: the utility of a model.
        groups: the group of each row, if groups are valued.
        method: the semi-value.
        sampler: the sampler of the settings.
    """
    name: SamplerName = "direct" if method == "leave_one_out" else "gains"
    automatic = sampler == "auto" and len(points.labels) > EXACT_UP_TO
    if groups is not None or not (sampler == name or automatic):
        return None
    if name == "gains":
        return name if has_row_gains(model, points, utility) else None
    return name if utility == "loss" and can_remove_directly(model, points) else None


def models_of_values(
    points: int,
    *,
    groups: Groups | None,
    method: str,
    permutations: Number,
    shortcut: SamplerName | None = None,
) -> int:
    """Return about how many models of more than a few rows the values need, at most.

    Args:
        points: number of rows.
        groups: the group of each row, if groups are valued.
        method: the semi-value.
        permutations: the budget.
        shortcut: see `shortcut_of`.

    Raises:
        InvalidInput: an impossible number of permutations.
    """
    orders = whole_number(permutations, "permutations", most=MOST_DRAWS)
    players = points if groups is None else len(set(array_of(groups).tolist()))
    if shortcut:
        return 1  # its models are trained, whatever the engine
    if method == "leave_one_out":
        return players + 1
    # Long orders; short ones are of a few rows.
    sampled = orders * players
    if groups is not None:
        sampled = int(budget_of(orders, points=players, rows=points))
    return min(sampled, 2**players) if players <= ENUMERABLE else sampled


def models_of_selection(points: int, count: Number, *, optimum: bool) -> int:
    """Return about how many models the engine needs to choose so many rows.

    Families with an `optimum` are always retrained, in few models.
    """
    size = whole_number(count, "k", least=1, most=points)
    if optimum:
        return 1
    removals = STRIDE * (points - size)  # each round removes one in so many of those it evaluated
    return removals + 6 * points + size


def _by_orders(
    valued: _Valued, context: StudyContext, game: Utility, permutations: int, *, block: int
) -> Values:
    config = valued.config
    return values_of(
        game,
        config,
        points=valued.players.height,
        permutations=permutations,
        rows=context.pool,
        generator=context.generator(seed=config.seed, study="values", block=block),
        progress=context.progress,
    )


def _estimated(valued: _Valued, context: StudyContext, checks: Checks) -> Values:
    config, subject = valued.config, context.refits[context.subject]
    if not isinstance(subject, Mixed):
        return _by_orders(valued, context, valued.game, config.permutations, block=0)
    orders = config.permutations + 2 * round((checks.orders - 1) * config.permutations / 2)
    values = _by_orders(valued, context, valued.game, orders, block=0)
    if values.sampler in SHORTCUTS or not values.standard_errors.any():
        return values
    checked = checked_orders(orders, method=config.semivalue, every=checks.every)
    return corrected(
        values,
        valued.game,
        valued.exact,
        least=0.0 if isinstance(valued.game, JointGame) else subject.least,  # players may be groups
        checked=lambda game: _by_orders(valued, context, game, checked, block=1),
    )


def _known_utility(name: str, context: StudyContext) -> UtilityName:
    known = get_args(UtilityName)
    if name not in known:
        raise InvalidInput(
            f"unknown utility {name!r}; known: {', '.join(known)}, or a function of scores "
            "[subsets, rows, outputs] and labels [rows]"
        )
    known_name = cast("UtilityName", name)
    require_utility(context, utility=known_name, key="utility")
    return known_name


def _with_rows(context: StudyContext, groups: Groups) -> StudyContext:
    """The context with the groups as the only column of its rows."""
    names = array_of(groups).tolist()
    if len(names) != context.pool:
        raise InvalidInput(f"{len(names)} groups for {context.pool} rows; pass one a row")
    column = pl.Series("groups", [None if name is None else str(name) for name in names])
    return replace(context, rows=column.to_frame())


def chosen_rows(
    context: StudyContext, *, count: Number, quota: str | Groups | None, swaps: Number
) -> pl.DataFrame:
    """Return the selected rows, the most important first.

    Columns: row_id, position, and gain: the increase of the predicted validation loss when the row is
    removed from the selection; null, and last, if one of the two models failed.

    Args:
        context: the fit, its subject, and the validation rows.
        count: number of rows to select.
        quota: `class`, or a group for each row: each keeps its share of the selection.
        swaps: most swaps that improve the greedy selection.

    Raises:
        InvalidInput: the count is out of range, or the groups are invalid.
    """
    count = whole_number(count, "k", least=1, most=context.pool)
    swaps = whole_number(swaps, "swaps", least=0, most=MOST_DRAWS)
    shares = _quota(context, quota)
    selected = greedy_selections(context, sizes=[count], quota=shares, swaps=swaps)[count]
    members = selected.nonzero()[:, 0]
    gains = _gains(context, selected, members)
    order = np.argsort(-gains, kind="stable")
    positions = members.numpy()[order]
    return pl.DataFrame(
        {
            "row_id": [context.row_ids[position] for position in positions],
            "position": positions,
            "gain": gains[order],
        }
    ).with_columns(pl.col("gain").fill_nan(None))


def _gains(context: StudyContext, selected: Tensor, members: Tensor) -> NDArray[np.float64]:
    """The increase of the loss when each member of a selection is removed."""
    if context.model.optimum is None:
        game = game_of(context.refits[context.subject], context)
        everyone = torch.arange(context.pool)
    else:
        few = replace(context, truth=context.truth.for_points(context.points.take(members)))
        game = game_of(few.truth, few)
        selected, everyone = selected[members], torch.arange(len(members))
        members = everyone
    utilities = torch.cat(
        [
            game((selected & (everyone != block[:, None])).to(torch.uint8))
            for block in torch.cat([members, members.new_tensor([-1])]).split(GAINS_AT_ONCE)
        ]
    )
    return (utilities[-1] - utilities[:-1]).numpy()


def _quota(context: StudyContext, quota: str | Groups | None) -> Quota:
    if quota is None:
        return no_quota(context.pool)
    if not isinstance(quota, str):
        _, members = groups_of(_with_rows(context, quota), column="groups", key="quota")
        return own_shares(members.argmax(dim=0))
    if quota != "class":
        raise InvalidInput(f"quota is {quota!r}; expected 'class' or a group for each row")
    if context.model.regression:
        raise InvalidInput("a regression has no classes; pass a group for each row as quota")
    _, group = torch.unique(context.points.labels, return_inverse=True)
    return own_shares(group)

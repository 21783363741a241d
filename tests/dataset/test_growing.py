"""A table that grew keeps its rows, its subsets and its trained shards; only what is new is trained."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from modelpred.dataset import DatasetConfig, prepare, read_dataset, write_dataset
from modelpred.errors import InvalidInput
from modelpred.subsets import SubsetsConfig, blocks, draw_subsets, write_subsets
from modelpred.targets import target_model
from modelpred.targets.shards import read_bank
from modelpred.targets.store import block_jobs, collect_shards, find_shard, train_block

SUBSETS = SubsetsConfig(
    fit={"uniform": 40, "bootstrap": 10}, validation={"uniform": 10}, test={"uniform": 10},
    grown=0.5, block=10,
)  # fmt: skip


def people(count):
    """The first rows of one endless table."""
    generator = np.random.default_rng(0)
    cells = generator.normal(size=(200, 3)).round(3)
    rich = np.where(cells @ [1, -1, 0.5] + generator.normal(size=200) > 0, "yes", "no")
    columns = {name: cells[:count, at] for at, name in enumerate(("a", "b", "c"))}
    return pl.DataFrame(
        {"person": [f"p{row}" for row in range(count)], **columns, "rich": rich[:count]}
    )


def subsets_of(dataset):
    return draw_subsets(
        SUBSETS, points=len(dataset.row_ids), labels=dataset.labels, earlier=dataset.earlier
    )


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares a table, as a continuation of another data set where one is given."""
    monkeypatch.chdir(tmp_path)

    def make(table, since=None, **keys):
        table.write_csv("people.csv")
        config = DatasetConfig(
            source="people.csv", label="rich", row_id="person",
            since=None if since is None else "v1", **keys,
        )  # fmt: skip
        return prepare(config, since=since)

    return make


def test_old_rows_keep_their_places_and_their_numbers(prepared):
    first = prepared(people(80))
    second = prepared(people(110), first)
    count = len(first.row_ids)
    assert second.row_ids[:count] == first.row_ids
    assert second.test_row_ids[: len(first.test_row_ids)] == first.test_row_ids
    assert torch.equal(second.features[:count], first.features)
    assert second.scaling == first.scaling
    assert second.encoding == first.encoding
    assert {*second.row_ids, *second.test_row_ids} == {f"p{row}" for row in range(110)}
    (earlier,) = second.earlier
    assert earlier.points == count
    assert earlier.places == tuple(range(count))
    third = prepared(people(130), second)
    assert [each.points for each in third.earlier] == [count, len(second.row_ids)]


def test_rows_that_went_or_changed_have_no_place(prepared):
    first = prepared(people(80))
    gone, changed = first.row_ids[3], first.row_ids[5]
    table = people(90).filter(pl.col("person") != gone)
    table = table.with_columns(a=pl.when(pl.col("person") == changed).then(9.0).otherwise("a"))
    second = prepared(table, first)
    places = second.earlier[0].places
    assert [at for at, place in enumerate(places) if place < 0] == [3, 5]
    for old, place in enumerate(places):
        assert place < 0 or second.row_ids[place] == first.row_ids[old]
    third = prepared(table, second)  # what had no place has none later
    assert third.earlier[0].places == places


def test_what_is_written_comes_back(prepared, tmp_path):
    second = prepared(people(110), prepared(people(80)))
    write_dataset(second, tmp_path / "written")
    again = read_dataset(tmp_path / "written")
    assert again.earlier == second.earlier
    assert again.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("keys", "change", "told"),
    [
        ({"flip": 0.1}, {}, "which planted labels do not outlive"),
        ({"points": 50}, {}, "a table that grows is one of your own, with dataset.points auto"),
        ({"drop": ("c",)}, {}, "but the column 'c' went since; set it to null"),
        ({}, {"rich": pl.lit("maybe")}, None),
        ({"max_points": 60}, {}, "which needs every row, but dataset.max_points takes 60 of 90"),
    ],
)
def test_what_cannot_be_continued_is_told(prepared, keys, change, told):
    first = prepared(people(80))
    table = people(90)
    if told is None:
        table = pl.concat([people(80), people(90).tail(10).with_columns(**change)])
        told = "with the classes no, yes, but now there are maybe, no, yes; set it to null"
    else:
        table = table.with_columns(**change)
    with pytest.raises(InvalidInput) as error:
        prepared(table, first, **keys)
    assert str(error.value).startswith("dataset.since is v1")
    assert told in str(error.value)


def test_columns_that_were_no_features_are_none_later_and_told(prepared, caplog):
    def table(count):
        same = pl.when(pl.col("person") == "p85").then(7).otherwise(1)
        return people(count).with_columns(same=same, d=pl.col("a") * 2 + pl.col("b"))

    first = prepared(table(80).drop("d"))
    second = prepared(table(90), first)
    assert first.column_names == second.column_names == ("a", "b", "c")
    told = [line for line in caplog.messages if "was no feature then" in line]
    assert [line.split("'")[1] for line in told] == ["same", "d"]


def test_the_fit_keeps_its_subsets_and_new_ones_take_new_rows(prepared):
    first = prepared(people(80))
    second = prepared(people(110), first)
    old = subsets_of(first).select(role="fit")
    new = subsets_of(second)
    fit = new.select(role="fit")
    assert len({bytes(row.numpy()) for row in new.weights}) == len(new)
    place = {name: at for at, name in enumerate(fit.ids)}
    kept = fit.weights[[place[name] for name in old.ids]]
    assert torch.equal(kept[:, : len(first.row_ids)], old.weights)
    assert not kept[:, len(first.row_ids) :].any()
    grown = [at for at, name in enumerate(fit.ids) if "grown1" in name]
    assert len(grown) == 25  # half of 50
    assert fit.weights[grown][:, len(first.row_ids) :].any(dim=0).all()
    third = prepared(people(130), second)
    last = subsets_of(third)
    assert {*fit.ids} < {*last.ids}
    of_grown = last.weights[[last.ids.index(fit.ids[at]) for at in grown]]
    assert torch.equal(of_grown[:, : len(second.row_ids)], fit.weights[grown])


@pytest.mark.parametrize("rare", [2, 3, 5])
def test_subsets_drawn_again_for_a_rare_class_are_kept_as_they_were(prepared, rare):
    def with_rare(count):
        rich = pl.when(pl.int_range(pl.len()) < rare).then(pl.lit("maybe")).otherwise("rich")
        return people(count).with_columns(rich=rich)

    first = prepared(with_rare(80))
    second = prepared(with_rare(110), first)
    third = prepared(with_rare(130), second)
    assert second.earlier[0].labels == tuple(first.labels.tolist())
    old, new, last = (subsets_of(each) for each in (first, second, third))
    assert old.redrawn["fit-uniform"] > 5
    assert new.redrawn["fit-uniform"] > old.redrawn["fit-uniform"]
    for before, after in ((old, new), (new, last)):
        kept = before.select(role="fit")
        place = {name: at for at, name in enumerate(after.ids)}
        weights = after.weights[[place[name] for name in kept.ids]]
        assert torch.equal(weights[:, : kept.weights.shape[1]], kept.weights)
    for drawn, dataset in ((old, first), (new, second), (last, third)):
        for label in range(len(dataset.classes)):
            assert (drawn.weights[:, dataset.labels == label] > 0).any(dim=1).all()


def test_subsets_that_take_a_row_that_went_go_with_it(prepared):
    first = prepared(people(80))
    second = prepared(people(90).filter(pl.col("person") != first.row_ids[0]), first)
    old = subsets_of(first).select(role="fit")
    new = subsets_of(second)
    kept = {name for name in new.select(role="fit").ids if "grown" not in name}
    without = [name for name, row in zip(old.ids, old.weights, strict=True) if row[0] == 0]
    assert kept == {*without}


def test_shards_of_unchanged_rows_are_not_trained_again(prepared, tmp_path):
    first = prepared(people(80))
    second = prepared(people(110), first)

    def trained(dataset, name):
        """The bank of a version, and how many of its blocks the store did not hold."""
        place = tmp_path / name
        write_dataset(dataset, place / "dataset")
        drawn = subsets_of(dataset)
        write_subsets(drawn, place / "subsets")
        jobs = block_jobs(
            dataset=place / "dataset", subsets=place / "subsets", store=tmp_path / "store",
            model=target_model("logistic"), tolerance=1e-8, block_size=SUBSETS.block,
        )  # fmt: skip
        missing = [job for job in jobs if find_shard(job) is None]
        for job in missing:
            train_block(job)
        collect_shards(jobs, place / "targets")
        return read_bank(place / "targets"), len(missing), len(blocks(drawn, SUBSETS.block))

    old, missing, total = trained(first, "v1")
    assert missing == total == 7
    new, missing, total = trained(second, "v2")
    assert (missing, total) == (5, 10)  # two held-out blocks and three grown ones
    assert new.weights.shape[1] == len(second.row_ids)
    place = {name: at for at, name in enumerate(new.ids)}
    fit = [at for at, role in enumerate(old.roles) if role == "fit"]
    kept = [place[old.ids[at]] for at in fit]
    assert torch.equal(new.parameters[kept], old.parameters[fit])
    # As if all were trained of the new pool.
    shutil.rmtree(tmp_path / "store")
    again, missing, _ = trained(second, "again")
    assert missing == 10
    torch.testing.assert_close(again.parameters[kept], new.parameters[kept], rtol=0, atol=1e-6)
    assert Path(tmp_path / "again").is_dir()


@pytest.mark.parametrize("seed", range(6))
def test_new_rows_go_where_their_group_is(prepared, seed):
    def homes(rows):
        return rows.with_columns(home=pl.Series([f"h{row * 7 % 23}" for row in range(len(rows))]))

    first = prepared(homes(people(60)), group="home", seed=seed)
    # Rows that went change the order in which groups are first seen, and so what would be drawn.
    grown = homes(people(140)).filter(~pl.col("person").is_in(["p0", "p1", "p5"]))
    second = prepared(grown, first, group="home", seed=seed)
    sides = [set(rows["home"]) for rows in (second.rows, second.test_rows)]
    assert not sides[0] & sides[1]
    assert len(second.row_ids) + len(second.test_row_ids) == 137


def test_a_version_that_split_its_groups_is_not_continued(prepared):
    rows = people(60).with_columns(home=pl.Series([f"h{row % 3}" for row in range(60)]))
    first = prepared(rows, drop=("home",))
    with pytest.raises(InvalidInput, match="has rows to train on and to test on in that version"):
        prepared(rows, first, group="home")

"""Shards keep what they were given, give the same bytes again, and are refused when they are not what they claim."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.subsets import Subsets
from modelpred.targets import TrainedTargets, spill, target_model
from modelpred.targets.parquet import CorruptShard, ShardMetadata, parse_shard, shard_bytes
from modelpred.targets.shards import (
    MANIFEST_NAME,
    ManifestEntry,
    RowContents,
    read_bank,
    read_manifest,
    read_shard,
    read_shards,
    shard_fingerprint,
    write_manifest,
    write_shard,
)
from tests.odd_files import flip_bit

POINTS, PARAMETERS = 12, 5
ROWS = RowContents(tuple(bytes([row]) for row in range(POINTS)), classes=2)
OTHER_ROWS = RowContents((b"other", *ROWS.digests[1:]), classes=2)


def block_of(rows: int, *, start: int = 0, highest: int = 3, role: str = "fit") -> Subsets:
    generator = np.random.default_rng(start)
    weights = generator.integers(0, highest + 1, size=(rows, POINTS))
    weights[0, 0] = highest
    return Subsets(
        ids=tuple(f"{role}-uniform-{start + row:06d}" for row in range(rows)),
        roles=(role,) * rows,
        designs=("uniform",) * rows,
        weights=torch.from_numpy(weights.astype(np.uint8 if highest <= 255 else np.int32)),
    )


def trained_on(block: Subsets) -> TrainedTargets:
    rows = len(block)
    generator = torch.Generator().manual_seed(rows)
    parameters = torch.randn(rows, PARAMETERS, dtype=torch.float64, generator=generator)
    parameters[0, 0] = torch.nan  # a target that failed is a row like any other
    return TrainedTargets(
        parameters=parameters,
        objective=torch.rand(rows, dtype=torch.float64, generator=generator),
        gradient_norm=torch.rand(rows, dtype=torch.float64, generator=generator),
        converged=torch.arange(rows) > 0,
        degenerate=torch.arange(rows) == 1,
        iterations=torch.arange(rows),
    )


def metadata_of(block: Subsets) -> ShardMetadata:
    model = target_model("logistic", C=1.0)
    return ShardMetadata(
        fingerprint=shard_fingerprint(ROWS, model, 1e-6, block),
        dataset="data",
        model=model.name,
        settings=model.settings,
        tolerance=1e-6,
    )


def shard_of(block: Subsets) -> bytes:
    return shard_bytes(block, trained_on(block), metadata_of(block))


def write_version(folder: Path, *blocks: Subsets) -> list[ManifestEntry]:
    entries: list[ManifestEntry] = []
    for number, block in enumerate(blocks):
        path = folder / f"block-{number}.parquet"
        sha256 = write_shard(
            path, block=block, trained=trained_on(block), metadata=metadata_of(block)
        )
        entries.append(
            ManifestEntry(
                file=path.name,
                fingerprint=metadata_of(block).fingerprint,
                sha256=sha256,
                size=path.stat().st_size,
                rows=len(block),
                designs={"uniform": len(block)},
            )
        )
    write_manifest(folder, entries)
    return entries


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize("highest", [1, 255, 256, 2**31 - 1])
def test_a_shard_gives_back_exactly_what_was_written(tmp_path, highest, precision):
    block = block_of(7, highest=highest)
    trained = trained_on(block)
    trained = replace(trained, parameters=trained.parameters.to(precision))
    write_shard(tmp_path / "a.parquet", block=block, trained=trained, metadata=metadata_of(block))
    shard = read_shard(tmp_path / "a.parquet")
    assert (shard.block.ids, shard.block.roles, shard.block.designs) == (
        block.ids,
        block.roles,
        block.designs,
    )
    assert torch.equal(shard.block.weights.long(), block.weights.long())
    assert shard.block.weights.dtype == (torch.uint8 if highest <= 255 else torch.int32)
    for field in dataclasses.fields(trained):
        given, kept = getattr(trained, field.name), getattr(shard.trained, field.name)
        assert given.numpy().tobytes() == kept.numpy().tobytes(), field.name
    assert shard.metadata == metadata_of(block)


def test_the_same_block_gives_the_same_bytes_whatever_type_its_weights_travelled_in():
    block = block_of(9)
    wide = dataclasses.replace(block, weights=block.weights.to(torch.int32))
    assert shard_of(block) == shard_of(block_of(9)) == shard_of(wide)


def test_the_fingerprint_follows_everything_that_the_numbers_follow_from():
    block = block_of(4)
    model = target_model("logistic", C=1.0)
    other_weights = block.weights.clone()
    other_weights[0, 0] += 1
    fingerprints = [
        shard_fingerprint(ROWS, model, 1e-6, block),
        shard_fingerprint(OTHER_ROWS, model, 1e-6, block),
        shard_fingerprint(ROWS, target_model("logistic", C=2.0), 1e-6, block),
        shard_fingerprint(ROWS, target_model("svm", C=1.0), 1e-6, block),
        shard_fingerprint(ROWS, model, 1e-7, block),
        shard_fingerprint(ROWS, model, 1e-6, block_of(5)),
        shard_fingerprint(ROWS, model, 1e-6, block_of(4, role="test")),
        shard_fingerprint(ROWS, model, 1e-6, dataclasses.replace(block, designs=("prefix",) * 4)),
        shard_fingerprint(ROWS, model, 1e-6, dataclasses.replace(block, weights=other_weights)),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprints[0] == shard_fingerprint(ROWS, model, 1e-6, block_of(4))


def test_the_fingerprint_outlives_rows_that_the_block_does_not_take():
    model = target_model("logistic", C=1.0)
    block = block_of(4)
    alone = dataclasses.replace(block, weights=block.weights.clone())
    alone.weights[:, 3] = 0
    kept = shard_fingerprint(ROWS, model, 1e-6, alone)
    changed = RowContents((*ROWS.digests[:3], b"other", *ROWS.digests[4:], b"new"), classes=2)
    wider = dataclasses.replace(alone, weights=torch.nn.functional.pad(alone.weights, (0, 1)))
    assert shard_fingerprint(changed, model, 1e-6, wider) == kept
    assert shard_fingerprint(changed, model, 1e-6, block) != shard_fingerprint(
        ROWS, model, 1e-6, block
    )


def test_polars_reads_a_shard_without_our_code(tmp_path):
    block = block_of(6)
    (tmp_path / "a.parquet").write_bytes(shard_of(block))
    table = pl.read_parquet(tmp_path / "a.parquet")
    assert table.schema["weights"] == pl.Array(pl.UInt8, POINTS)
    assert table.schema["parameters"] == pl.Array(pl.Float64, PARAMETERS)
    assert table["size"].to_list() == block.weights.sum(dim=1).tolist()
    assert np.array_equal(table["weights"].to_numpy(), block.weights.numpy())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.8, 0.999])
def test_a_flipped_byte_is_found_and_the_file_named(tmp_path, share):
    write_version(tmp_path, block_of(8), block_of(8, start=8))
    broken = tmp_path / "block-1.parquet"
    flip_bit(broken, share)
    with pytest.raises(CorruptShard, match=r"block-1\.parquet: content does not match its hash"):
        read_bank(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "has 0 bytes"), (b"garbage", "has 7 bytes"), (None, "is missing")],
)
def test_a_short_or_missing_file_is_named(tmp_path, content, told):
    write_version(tmp_path, block_of(8))
    (tmp_path / "block-0.parquet").unlink()
    if content is not None:
        (tmp_path / "block-0.parquet").write_bytes(content)
    with pytest.raises(CorruptShard, match=rf"block-0\.parquet:? {told}.*run the targets stage"):
        read_bank(tmp_path)


def test_damaged_bytes_never_give_anything_but_a_clear_refusal():
    # Without the hash's help: the parser itself must hold. A change may also leave a valid shard (a number differs).
    whole = shard_of(block_of(6))
    generator = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for position in generator.integers(0, len(whole), size=generator.integers(1, 4)):
            damaged[position] = generator.integers(0, 256)
        if generator.random() < 0.3:
            damaged = damaged[: generator.integers(0, len(whole))]
        try:
            parse_shard(bytes(damaged), name="x.parquet")
        except CorruptShard as error:
            assert str(error).startswith("x.parquet: ")  # noqa: PT017
            refused += 1
    assert refused > 150


def rewritten(block: Subsets, change) -> bytes:
    table = change(pq.read_table(pa.BufferReader(shard_of(block))))
    target = pa.BufferOutputStream()
    pq.write_table(table, target)
    return target.getvalue().to_pybytes()


def other_schema_version(table: pa.Table) -> pa.Table:
    told = json.loads(table.schema.metadata[b"modelpred"]) | {"schema_version": 99}
    return table.replace_schema_metadata({"modelpred": json.dumps(told)})


def zero_sizes(table: pa.Table) -> pa.Table:
    field = pa.field("size", pa.int64(), nullable=False)
    return table.set_column(3, field, pa.array([0] * len(table)))


def with_column(table: pa.Table, name: str, values: list) -> pa.Table:
    at = table.column_names.index(name)
    field = table.schema.field(name)
    return table.set_column(at, field, pa.array(values, field.type))


def with_negative_weights(table: pa.Table) -> pa.Table:
    weights = -np.array(table["weights"].to_pylist())
    sizes = weights.sum(1)
    return with_column(with_column(table, "weights", weights.tolist()), "size", sizes.tolist())


def with_last_parameter(value: float):
    def changed(table: pa.Table) -> pa.Table:  # the last model has converged, the first has not
        parameters = table["parameters"].to_pylist()
        parameters[-1][-1] = value
        return with_column(table, "parameters", parameters)

    return changed


OTHER_SHAPES = {
    "a column less": (lambda t: t.drop_columns(["objective"]), "columns must be"),
    "no weights": (lambda t: t.drop_columns(["weights"]), "weights must be a list of fixed size"),
    "a column more": (lambda t: t.append_column("more", t["objective"]), "columns must be"),
    "no metadata": (lambda t: t.replace_schema_metadata({}), "no valid shard metadata"),
    "empty metadata": (
        lambda t: t.replace_schema_metadata({"modelpred": "{}"}),
        "no valid shard metadata",
    ),
    "no rows": (lambda t: t.slice(0, 0), "claims 0 rows"),
    "wrong sizes": (zero_sizes, "sizes do not match the weights"),
    "weights below 0": (with_negative_weights, "weights below 0"),
    "a converged model with nan": (with_last_parameter(np.nan), "parameters are not finite"),
    "a converged model with inf": (with_last_parameter(-np.inf), "parameters are not finite"),
    "another schema version": (other_schema_version, "schema version 99, expected 1"),
}


@pytest.mark.parametrize(("change", "told"), OTHER_SHAPES.values(), ids=OTHER_SHAPES.keys())
def test_a_file_of_another_shape_is_refused(change, told):
    with pytest.raises(CorruptShard, match=told):
        parse_shard(rewritten(block_of(6, highest=300), change), name="x.parquet")


def test_negative_and_huge_weights_are_not_written():
    block = block_of(3)
    for value in (-1, 2**31):
        weights = block.weights.to(torch.int64)
        weights[1, 1] = value
        broken = dataclasses.replace(block)
        object.__setattr__(broken, "weights", weights)  # past the run-time check of its type
        with pytest.raises(InvalidInput, match="weights must be counts"):
            shard_of(broken)


def test_the_bank_holds_all_shards_in_the_manifests_order(tmp_path):
    parts = [block_of(4, start=20, role="test"), block_of(5), block_of(3, start=5, highest=400)]
    write_version(tmp_path, *parts)
    bank = read_bank(tmp_path)
    assert bank.ids == tuple(name for part in parts for name in part.ids)
    assert torch.equal(bank.weights.long(), torch.cat([part.weights.long() for part in parts]))
    expected = torch.cat([trained_on(part).parameters for part in parts])
    assert torch.equal(bank.parameters.nan_to_num(), expected.nan_to_num())
    fit = bank.select(role="fit", design="uniform")
    assert fit.ids == parts[1].ids + parts[2].ids
    assert torch.equal(fit.objective, bank.objective[4:])
    assert bank.select(design="prefix").parameters.shape == (0, PARAMETERS)


def test_a_bank_in_files_is_the_bank_in_memory(tmp_path, monkeypatch):
    """Also where counts that need more than a byte come only with a later shard."""
    write_version(tmp_path, block_of(4), block_of(3, start=4, highest=300), block_of(2, start=7))
    expected = read_bank(tmp_path)
    monkeypatch.setattr(spill, "LARGEST", 0)
    found = read_bank(tmp_path)
    assert found.weights.dtype == expected.weights.dtype == torch.int32
    for name in ("ids", "roles", "designs"):
        assert getattr(found, name) == getattr(expected, name)
    for name in ("weights", "parameters", "objective", "converged", "degenerate"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=0, atol=0, equal_nan=True
        )
    for mine, theirs in zip(found.usable(role="fit"), expected.usable(role="fit"), strict=True):
        assert torch.equal(mine, theirs)


def test_shards_are_read_one_at_a_time(tmp_path):
    write_version(tmp_path, block_of(4), block_of(4, start=4))
    (tmp_path / "block-1.parquet").unlink()
    shards = read_shards(tmp_path)
    assert next(shards).block.ids == block_of(4).ids
    with pytest.raises(CorruptShard, match="block-1"):
        next(shards)


def test_files_that_the_manifest_does_not_list_are_not_read(tmp_path):
    write_version(tmp_path, block_of(4))
    (tmp_path / "left-over.parquet").write_bytes(b"from another version")
    assert len(read_bank(tmp_path).ids) == 4


def test_shards_that_do_not_fit_together_are_refused(tmp_path):
    write_version(tmp_path, block_of(4), block_of(4))
    with pytest.raises(CorruptShard, match="two shards hold the same subset"):
        read_bank(tmp_path)
    entry = write_version(tmp_path, block_of(4))[0]
    write_manifest(tmp_path, [entry.model_copy(update={"fingerprint": "0" * 64})])
    with pytest.raises(CorruptShard, match=r"block-0\.parquet: is another shard"):
        read_bank(tmp_path)
    write_manifest(tmp_path, [])
    with pytest.raises(CorruptShard, match="lists no shards"):
        read_bank(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../outside.parquet"},
        {"file": "/etc/passwd"},
        {"file": ".hidden.parquet"},
        {"sha256": "0"},
        {"rows": 0},
        {"unknown": 1},
    ],
)
def test_a_manifest_with_an_unsafe_or_unknown_entry_is_refused(tmp_path, change):
    entry = write_version(tmp_path, block_of(4))[0].model_dump() | change
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"schema_version": 1, "shards": [entry]}))
    with pytest.raises(CorruptShard, match=r"manifest\.json: not a valid manifest"):
        read_manifest(tmp_path)


def test_a_missing_damaged_or_doubled_manifest_is_named(tmp_path):
    with pytest.raises(CorruptShard, match=r"manifest\.json is missing; .*run the targets stage"):
        read_manifest(tmp_path)
    entry = write_version(tmp_path, block_of(4))[0]
    write_manifest(tmp_path, [entry, entry])
    with pytest.raises(CorruptShard, match=r"lists block-0\.parquet more than once"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\x00{")
    with pytest.raises(CorruptShard, match="not a valid manifest"):
        read_manifest(tmp_path)

"""A project's plan is read as it was written, or refused in one line that says what to do."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.check.plan_file import PLAN, PlanFile, known_plan, skipped_studies, write_plan
from modelpred.errors import InvalidInput
from modelpred.sealed import hashed
from modelpred.studies import STUDIES

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
plans = st.builds(
    PlanFile,
    asked=st.dictionaries(texts, values, max_size=3),
    skipped=st.lists(st.sampled_from(sorted(STUDIES)), max_size=3),
    seconds=st.dictionaries(texts, st.floats(0, 1e6), max_size=3),
    decisions=st.lists(st.dictionaries(texts, texts, max_size=2), max_size=2),
    written=texts,
)
READERS = (skipped_studies, known_plan)


def written(place: str, plan: PlanFile) -> Path:
    folder = Path(place) / "people-modelpred"
    (folder / PLAN).parent.mkdir(parents=True)
    write_plan(plan, folder)
    return folder


@given(plans)
@settings(max_examples=60, deadline=None)
def test_a_plan_is_read_as_it_was_written(plan):
    with tempfile.TemporaryDirectory() as place:
        folder = written(place, plan)
        assert known_plan(folder) == plan
        assert skipped_studies(folder) == tuple(plan.skipped)


@given(plans, st.data())
@settings(max_examples=150, deadline=None)
def test_any_damage_is_one_line(plan, data):
    with tempfile.TemporaryDirectory() as place:
        folder = written(place, plan)
        content = (folder / PLAN).read_bytes()
        at = data.draw(st.integers(0, len(content) - 1))
        bit = data.draw(st.integers(0, 7))
        flipped = content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]
        changed = data.draw(st.sampled_from([content[:at], flipped, content + content]))
        (folder / PLAN).write_bytes(changed)
        for read in READERS:
            refused_or_same(read, folder, plan)


@given(plans, st.sampled_from(sorted(PlanFile.model_fields)), values)
@settings(max_examples=100, deadline=None)
def test_content_of_another_kind_with_a_true_hash_is_one_line(plan, key, value):
    with tempfile.TemporaryDirectory() as place:
        folder = written(place, plan)
        content = {**plan.model_dump(mode="json"), key: value}
        (folder / PLAN).write_text(json.dumps(hashed(content)))
        try:
            expected = PlanFile.model_validate_json(json.dumps(content))
        except ValueError:
            for read in READERS:
                with pytest.raises(InvalidInput, match=key):
                    read(folder)
        else:
            assert known_plan(folder) == expected


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling", "loop"])
def test_what_is_no_ordinary_file_is_one_line(tmp_path, kind):
    plan = PlanFile(asked={}, skipped=["lds"], seconds={}, decisions=[], written="")
    folder = written(str(tmp_path), plan)
    path = folder / PLAN
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to("nowhere")
        case _:
            path.symlink_to(path)
    for read in READERS:
        with pytest.raises(
            InvalidInput, match=r"plan\.json (cannot be used|is missing)"
        ) as refused:
            read(folder)
        assert "\n" not in str(refused.value)
        assert "remove" in str(refused.value)


def refused_or_same(read, folder, plan):
    """Blanks between the values of a JSON file do not count."""
    try:
        found, said = read(folder), None
    except InvalidInput as error:
        found, said = None, str(error)
    if said is None:
        assert found in (plan, tuple(plan.skipped))
    else:
        assert "\n" not in said
        assert "plan.json" in said
        assert "remove" in said

"""YAML is read as DVC's own parser reads it; whatever else is in a file is one line."""

import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from flows import schedule
from flows.artifacts import locked_stages
from modelpred import yaml_files
from modelpred.errors import InvalidInput
from modelpred.params import read_params
from modelpred.yaml_files import parse_yaml, read_yaml
from tests.odd_files import make_odd

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    ["1e-6", "yes", "no", "0x1f", "0o7", "1_000", "2024-01-01", "null", "~", "true", ".inf", "<<"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(texts, values, max_size=4))
@settings(max_examples=80, deadline=None)
def test_what_dvc_writes_is_read_as_it_was(content):
    """The oracle: ruamel.yaml in the mode in which DVC writes params.yaml and dvc.lock."""
    written = io.BytesIO()
    YAML().dump(content, written)
    if content:
        assert parse_yaml(written.getvalue(), "params.yaml") == content


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


hostile = st.one_of(
    st.binary(max_size=60),
    st.text(st.sampled_from("a:- \n[]{},&*!|>'\"#?%@`1e.0\t\\"), max_size=60).map(str.encode),
    st.sampled_from([1, 49, 50, 300, 20_000]).map(lambda depth: b"a: " + b"[" * depth + b"]" * depth),
    st.sampled_from([1, 25, 26, 3_000]).map(lambda depth: b"a: " + b"{b: " * depth + b"}" * depth),
    st.sampled_from([1, 50, 51, 300]).map(lambda depth: b"\n".join(b" " * at + b"a:" for at in range(depth))),
    st.integers(1, 10_000).map(lambda digits: b"predictor: {seed: " + b"9" * digits + b"}"),
    st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda drawn: bomb(*drawn).encode()),
    st.sampled_from(
        [
            b"", b"# nothing\n", b"null", b"- a", b"3", b"a: 1\n---\na: 2\n", b"a: 1\n...\nb: 2\n",
            b"dataset: &a\n  source: spam\n  file: *a\n", b"dataset: &a [*a]", b"&a {b: *a}",
            b"a: *b", b"? [a, b]\n: 1", b"? {a: b}\n: 1", b'a: "\\ud800"', b'a: "\\0"', b"<<: 1",
            b"\xff\xfea\0:\0", "﻿a: 1".encode(), "a: é".encode("latin-1"), b"a: !!int x",
            b"!!python/object:os.system {}", b"%YAML 9.9\n---\na: 1", b"%TAG ! x\n", b"a: |9999\n",
        ]
    ),
)  # fmt: skip


def one_line(read) -> None:
    """Run the reader: content, or an error of one line.

    Drawn files reach a limit of 500 values sooner than the real one, which a test below reaches.
    """
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml_files, "MOST_VALUES", 500)
            read()
    except (InvalidInput, SystemExit) as error:
        told = str(error)
        assert 0 < len(told) < 500
        assert "\n" not in told


@given(hostile)
@example(bomb(30, 10).encode())
@example(b"predictor: {seed: -1}")
@settings(max_examples=100, deadline=None)
def test_whatever_is_in_a_file_is_content_or_one_line(content):
    one_line(lambda: parse_yaml(content, "params.yaml"))


@given(hostile)
@settings(max_examples=15, deadline=None)
def test_every_file_of_ours_says_so(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("yaml")
    for name, read in (
        ("dvc.lock", lambda: locked_stages(root=folder)),
        ("schedule.yaml", lambda: schedule.read_schedule(folder / "schedule.yaml")),
    ):
        (folder / name).write_bytes(content)
        one_line(read)
    (folder / "params.yaml").write_bytes(content)
    told = ""
    try:
        read_params(folder / "params.yaml")
    except InvalidInput as error:
        told = str(error)  # a line for each key that is wrong
    assert all(line.startswith("params.yaml: ") for line in told.splitlines())


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "loop", "large"])
def test_what_is_no_ordinary_file_is_one_line(tmp_path: Path, kind):
    path = tmp_path / "params.yaml"
    make_odd(path, kind)
    if kind == "large":
        path.write_bytes(b"a: 1\n" * 300_000)
    with pytest.raises(InvalidInput, match=r"params\.yaml [^\n]*; restore it") as caught:
        read_yaml(path, again="restore it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: 1\n---\na: 2", "line 2 is not YAML: expected a single document in the stream but"),
        (b"a: &a [*a]", "line 1 is nested too deeply; at most 50 levels are read"),
        (b"a: " + b"[" * 5000, "nested too deeply"),
        (bomb(9, 9).encode(), "holds too much; at most 20,000 values are read"),
        (b"a: 1\nb: " + b"1" * 5000, "line 2 has a number of 5,000 digits; at most 300 are read"),
        (b"\n? [a]\n: 1", "line 2 has a list or a section as a key"),
        (b"", "expected a section of keys, got null"),
        (b"- a", "expected a section of keys, got a list"),
        (b"\xff", "expected text in UTF-8; invalid start byte"),
        (b'a: "\\ud800"', "line 1 holds a character that is no text"),
    ],
)
def test_the_line_says_what_is_wrong(content, told):
    with pytest.raises(InvalidInput) as caught:
        parse_yaml(content, "params.yaml")
    assert str(caught.value).startswith("params.yaml: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "section",
    ["dataset", "subsets", "predictor", "targets", "edits", "lds", "valuation", "labels",
     "selection", "memorization", "calibration", "attribution"],
)  # fmt: skip
@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63, 10**22, 10**299])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path, section, seed):
    model = "model: mlp, " if section == "targets" else ""
    (tmp_path / "params.yaml").write_text(f"{section}: {{{model}seed: {seed}}}")
    # The predictor takes the number after its seed, too.
    most = "below" if section == "predictor" else "of at most"
    expected = f"a whole number of at least 0 and {most} 9223372036854775807"
    with pytest.raises(InvalidInput, match=f"{section}.seed: expected {expected}, got {seed}"):
        read_params(tmp_path / "params.yaml")

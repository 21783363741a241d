"""params.yaml is read as DVC reads it, and what is wrong in it is told in one line each."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from modelpred.dataset import DatasetConfig
from modelpred.errors import InvalidInput
from modelpred.params import Params, read_params
from modelpred.subsets import DESIGNS

PROJECT = Path(__file__).parents[1]


def read(text, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return read_params(path)


def lines(text, tmp_path):
    with pytest.raises(InvalidInput) as error:
        read(text, tmp_path)
    return str(error.value).splitlines()


def keys_of(config):
    """Names of a config's fields with those of the configs inside."""
    return {
        name: keys_of(value) if isinstance(value, BaseModel) else None for name, value in config
    }


def keys_in(content, like):
    return {
        name: keys_in(value, like[name]) if like.get(name) else None
        for name, value in content.items()
    }


def test_the_shipped_file_shows_every_key_in_the_order_of_the_pipeline():
    content = yaml.safe_load((PROJECT / "params.yaml").read_text())
    known = keys_of(read_params(PROJECT / "params.yaml"))
    assert keys_in(content, known) == known
    assert list(content) == list(Params.model_fields)


def test_values_arrive(tmp_path):
    params = read(
        """
        dataset: {source: iris, points: 40}
        subsets:
          fit: {uniform: 10}
        targets: {C: 2, model: svm}
        gates: {designs: [uniform, deletion], parameter_error: null}
        """,
        tmp_path,
    )
    assert params.dataset.points == 40
    assert params.dataset.test == "auto"
    assert params.subsets.fit == {"uniform": 10}
    assert params.targets.C == 2.0
    assert params.gates.designs == ("uniform", "deletion")
    assert params.gates.parameter_error is None


def test_a_section_left_out_keeps_its_defaults(tmp_path):
    assert read("dataset: {source: iris}", tmp_path).targets == Params().targets


@pytest.mark.parametrize("written", ["1e-6", "1.0e-6", ".000001", "0.000001", "+1E-06"])
def test_numbers_are_those_of_yaml_1_2(written, tmp_path):
    # DVC writes 1e-06, which older YAML takes for text.
    assert read(f"targets: {{tolerance: {written}}}", tmp_path).targets.tolerance == 1e-6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "report: {row: 1}",
            "unknown key report.row; known: rows",
        ),
        (
            "target: {C: 1}",
            f"unknown key target; known: {', '.join(sorted(Params.model_fields))}",
        ),
        (
            "subsets: {fit: {unform: 3}}",
            f"unknown key subsets.fit.unform; known: {', '.join(sorted(DESIGNS))}",
        ),
        ("targets: {C: abc}", "targets.C: expected a number above 0, got 'abc'"),
        ("targets: {C: '1'}", "targets.C: expected a number above 0, got '1'"),
        ("targets: {C: 0}", "targets.C: expected a number above 0, got 0"),
        ("targets: {C: .inf}", "targets.C: expected a number above 0, got '.inf'"),
        ("targets: {C: 1e999}", "targets.C: expected a number above 0, got '1e999'"),
        ("targets: {C: true}", "targets.C: expected a number above 0, got true"),
        ("targets: {C: [1]}", "targets.C: expected a number above 0, got a list"),
        ("targets: {C: {a: 1}}", "targets.C: expected a number above 0, got a section of keys"),
        ("targets: {hidden: 1.5}", "targets.hidden: expected a whole number of at least 1, got 1.5"),
        (
            "targets: {momentum: 1}",
            "targets.momentum: expected a number of at least 0 and below 1, got 1",
        ),
        (
            "targets: {model: svn}",
            "targets.model: expected one of auto, logistic, softmax, svm, ridge, ridge_classifier, mlp or the import path of a target of your own, such as models.nets:target, got 'svn'",
        ),
        ("targets: 3", "targets: expected a section of keys, got 3"),
        (
            "dataset: {points: 2}",
            "dataset.points: expected a whole number of at least 3 or auto, got 2",
        ),
        (
            "dataset: {points: all}",
            "dataset.points: expected a whole number of at least 3 or auto, got 'all'",
        ),
        (
            "dataset: {test: 0}",
            "dataset.test: expected a whole number of at least 1 or a number above 0 and below 1 or text, got 0",
        ),
        ("dataset: {source: 3}", "dataset.source: expected text, got 3"),
        (
            "subsets: {fit: {uniform: -1}}",
            "subsets.fit.uniform: expected a whole number of at least 0, got -1",
        ),
        ("valuation: {rivals: yes}", "valuation.rivals: expected true or false, got 'yes'"),
        (
            "valuation: {seed: 0, permutations: 3}",
            "valuation.permutations: expected a whole number of at least 2 and a multiple of 2, got 3",
        ),
        (
            "gates: {designs: [unifrom]}",
            ("gates.designs.0: expected one of leave_one_out, addition, deletion, uniform, prefix, bootstrap, "
            "got 'unifrom'"),
        ),
        (
            "gates: {beats: [newton]}",
            ("gates.beats.0: expected one of full_model, influence, rescaled_influence, newton_step, "
            "linear_datamodel, fine_tuned_10, fine_tuned_30, got 'newton'"),
        ),
        (
            "gates: {designs: []}",
            "gates.designs: expected a list with a length of at least 1, got a list",
        ),
        ("predictor:", "predictor: expected a section of keys, got null"),
        ("", "expected a section of keys, got null"),
        ("3", "expected a section of keys, got 3"),
        ("targets: {}\ntargets: {}", "line 2 gives 'targets' a second time; keep one"),
        ("targets: [", "line 1 is not YAML: expected the node content, but found '<stream end>'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(text, expected, tmp_path):
    assert lines(text, tmp_path) == [f"params.yaml: {expected}"]


def test_everything_wrong_is_told_at_once(tmp_path):
    told = lines("dataset: {points: x, tset: 3}\nedits: {step: 0}", tmp_path)
    assert told == [
        "params.yaml: dataset.points: expected a whole number of at least 3 or auto, got 'x'",
        f"params.yaml: unknown key dataset.tset; known: {', '.join(sorted(DatasetConfig.model_fields))}",
        "params.yaml: edits.step: expected a whole number of at least 1, got 0",
    ]


def replaced_by_dvc(path, config):
    """Whether `dvc exp run --set-param` changes one of the texts in the file, or fails at it."""
    path.write_text(yaml.safe_dump({"dataset": config, "edits": {"seed": 0}}))
    try:
        apply_overrides(str(path), ["edits.seed=1"])
    except Exception:  # noqa: BLE001 - the parser has many kinds
        return True
    return yaml.safe_load(path.read_text())["dataset"] != config


@given(
    key=st.sampled_from(["source", "file", "watch", "test"]),
    parts=st.lists(
        st.sampled_from(
            [
                "${",
                "}",
                "$",
                "{",
                "dataset.watch",
                "oc.env:HOME",
                "x",
                "é",
                " ",
                "[0]",
                "\\",
                "%",
                "#",
            ]
        ),
        min_size=1,
        max_size=5,
    ),
)
@settings(max_examples=150, deadline=None)
def test_a_path_is_data_or_refused(key, parts, tmp_path_factory):
    place = tmp_path_factory.getbasetemp() / "params.yaml"
    value = f"data/{''.join(parts)}.csv"
    config = {"source": "spam", "watch": "data", key: value}
    place.write_text(yaml.safe_dump({"dataset": config}))
    if "${" in value:
        with pytest.raises(InvalidInput, match=rf"^params.yaml: dataset.{key}: expected a path .*"):
            read_params(place)
        return
    assert getattr(read_params(place).dataset, key) == value
    assert not replaced_by_dvc(place, config)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"params\.yaml is missing; run this in the folder that"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\xfa", b"a: \x01"])
def test_what_is_not_text_is_refused(content, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^params\.yaml: [^\n]*$"):
        read_params(path)


def test_a_tag_makes_no_object(tmp_path):
    text = "dataset: !!python/object/apply:os.system ['true']"
    assert lines(text, tmp_path) == [
        "params.yaml: dataset: expected a section of keys, got a list"
    ]  # fmt: skip


def test_params_do_not_change():
    with pytest.raises(ValidationError):
        Params().dataset.seed = 3
    with pytest.raises(ValidationError):
        Params().dataset = Params().dataset


def test_importing_params_pays_for_no_orchestrator_registry_or_figures():
    program = (
        "import sys, modelpred.params; "
        "sys.exit(str({'mlflow', 'prefect', 'dvc', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    assert done.stderr.strip() == "set()"

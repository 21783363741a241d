"""Targets of the user's own code: found by import path, rebuilt elsewhere, and never of other code."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.subsets import SubsetsConfig
from modelpred.targets import TargetsConfig, target_model, train_targets
from modelpred.targets.jobs import read_inputs
from modelpred.targets.own_code import defining_files, imported_target
from modelpred.targets.shards import read_bank
from modelpred.targets.store import collect_shards
from modelpred.targets.worker_pool import DevicePool
from tests.targets.job_inputs import jobs_of, write_inputs

NETS = """
from torch import nn
from modelpred.targets import TorchTarget
from {package}.layers import hidden

def build():
    return nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))

target = TorchTarget(build=build, epochs=2, batch_size=10)

def wide(width=6, rate=0.1):
    def wider():
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    return TorchTarget(build=wider, epochs=1, learning_rate=rate)

text = "no target"
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The name of a package of two files in the current folder, which is forgotten afterwards."""
    name = f"nets_{abs(hash(str(tmp_path)))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "nets.py").write_text(NETS.format(package=name))
    (tmp_path / name / "layers.py").write_text("hidden = 5\n")
    (tmp_path / name / "other.py").write_text("raise RuntimeError('not imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


def test_a_target_is_found_with_the_files_that_it_imports(package):
    path = f"{package}.nets:target"
    found = imported_target(path, {"epochs": 3})

    assert (found.name, found.epochs, found.batch_size) == (path, 3, 10)
    assert [file.name for file in defining_files(path)] == ["nets.py", "layers.py"]
    again = imported_target(path, found.settings)
    assert again.settings == found.settings
    assert again.code == found.code


def test_a_function_that_returns_a_target_takes_the_settings(package):
    path = f"{package}.nets:wide"
    found = imported_target(path, {"width": 7})
    assert found.settings == {"width": 7, "code": found.code}
    assert found.parameter_count(4, 2) == 7 * 5 + 2 * 8
    assert imported_target(path, found.settings).settings == found.settings


@given(edited=st.sampled_from(["nets.py", "layers.py"]), text=st.text("ab # \n", min_size=1))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_changed_code_is_another_target(package, edited, text):
    path = f"{package}.nets:target"
    before = imported_target(path, {})
    file = Path(package, edited)
    content = file.read_text()
    file.write_text(content + f"\n'''{text}'''\n")
    try:
        with pytest.raises(InvalidInput, match="is not the one of the fingerprint"):
            imported_target(path, before.settings)
        with pytest.raises(InvalidInput, match="changed since this process imported it"):
            imported_target(path, {})
    finally:
        file.write_text(content)
    assert imported_target(path, before.settings).code == before.code


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("nets:nothing", {}, "has no nothing; expected a TorchTarget"),
        ("nets:text", {}, "another kind of text"),
        ("nets:target", {"width": 3}, "has no setting 'width'"),
        ("nets:wide", {"depth": 3}, "does not take these settings"),
        ("nets:build", {}, "gives Sequential; expected a TorchTarget"),
        ("other:target", {}, "importing .* fails .RuntimeError: not imported"),
        ("missing:target", {}, "there is no module"),
    ],
)
def test_what_is_no_target_is_refused_in_one_line(package, name, settings, said):
    with pytest.raises(InvalidInput, match=said) as error:
        imported_target(f"{package}.{name}", settings)
    assert "\n" not in str(error.value)


def test_only_the_stages_import_code(package):
    with pytest.raises(InvalidInput, match="code that would have to be imported"):
        target_model(f"{package}.nets:target")
    assert f"{package}.nets" not in sys.modules


def test_the_file_must_be_one_that_the_stages_depend_on(package):
    config = TargetsConfig(model=f"{package}.nets:target", code=package)
    assert config.build(classes=2).name == config.model
    narrow = config.model_copy(update={"code": f"{package}/nets.py"})
    with pytest.raises(InvalidInput, match=r"targets.code is .* but .* runs .*layers.py"):
        narrow.build(classes=2)
    with pytest.raises(InvalidInput, match=r"targets\.settings are those of a target"):
        TargetsConfig(model="softmax", settings={"epochs": 3}).build(classes=2)


def test_workers_train_its_shards_in_float32(package, tmp_path):
    drawn = SubsetsConfig(fit={"uniform": 12}, validation={"uniform": 4}, test={"uniform": 4})
    write_inputs(tmp_path, drawn)
    model = TargetsConfig(model=f"{package}.nets:target", code=package).build(classes=2)
    jobs = jobs_of(tmp_path, tmp_path / "store", model, tolerance=1e-6, block_size=6)

    def train(missing):
        with DevicePool(["cpu:0"]) as pool:
            for job in missing:
                pool.train(job)

    collect_shards(jobs, tmp_path / "targets", train=train)
    bank = read_bank(tmp_path / "targets")
    inputs = read_inputs(tmp_path / "dataset", tmp_path / "subsets", 6).dataset
    expected = train_targets(model, inputs.features, inputs.labels, bank.weights, classes=2)
    assert bank.parameters.dtype == torch.float32
    torch.testing.assert_close(bank.parameters, expected.parameters, rtol=1e-5, atol=1e-6)

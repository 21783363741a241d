"""Everything that reads what a run leaves: stages, commands, the API, serving and the page."""

import time
from collections.abc import Callable
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import torch
from typer.testing import CliRunner

from modelpred import ModelPred
from modelpred.cli import app
from modelpred.page.app import application
from modelpred.page.scores import Scores, studies_of
from modelpred.page.subject import Subject
from modelpred.registry import files_of
from modelpred.serving import application_of
from modelpred.targets.store import train_block
from tests.artifacts.finished import MATRIX, SAVED, SCHEDULE

NAME = "modelpred-iris-logistic"
# Files that hold times of this run, or the hashes of such files.
TIMED = {"SHA256SUMS", "fidelity", "history", "metrics", "errors", "break_even", "edits", "methods"}


def stage(name: str) -> Callable[[], object]:
    """A stage, in this process; what it wrote."""

    def run() -> object:
        import_module(f"flows.{name}").main()
        return contents(Path("artifacts") / name)

    return run


def targets() -> object:
    """The stage that trains, without processes for it."""
    training = import_module("flows.local_training")
    kept = training.train_blocks
    training.train_blocks = lambda jobs, **_: [train_block(job) for job in jobs]
    try:
        return stage("targets")()
    finally:
        training.train_blocks = kept


def study(name: str) -> Callable[[], object]:
    """A study, in this process; what it wrote."""

    def run() -> object:
        import_module("flows.studies").run(name)
        return contents(Path("artifacts/studies") / name)

    return run


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file that is the same in every run."""
    return {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.stem not in TIMED and not path.stem.startswith("edits-")
    }


def command(*words: str) -> Callable[[], object]:
    """A command of `modelpred`, in this process; what it printed."""

    def run() -> object:
        done = CliRunner().invoke(app, list(words))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        if done.exit_code:
            raise SystemExit(done.output.removesuffix("\n") or done.exception.code)
        return done.output

    return run


def publish() -> str:
    """The version that is registered already, or is registered now."""
    return import_module("flows.publish").register()


def published() -> object:
    """The message of the last publication, if nothing has changed since."""
    return import_module("flows.publish").registered()


def served() -> object:
    """The application of the champion; what it would answer is what its predictor predicts."""
    folder = files_of(Path(), NAME)
    application_of(folder)
    return str(folder.relative_to(Path().absolute()))


def loaded(folder: Path) -> Callable[[], object]:
    """A ModelPred, of its folder or of a run; its models."""

    def run() -> object:
        mp = ModelPred.load(folder)
        weights = torch.ones(2, len(mp.row_ids))
        weights[1, 0] = 0
        return mp.predict_parameters(weights).tolist(), mp.trained_subsets.parameters.sum().item()

    return run


def page() -> object:
    """The page of a project."""
    mp = ModelPred.load(Path())
    subject = Subject(mp, "page", ".", studies_of(Path()))
    application(subject)
    scores = Scores(subject)
    found = [scored(scores, name) for name in ("value", "suspicion", "memorization")]
    return subject.rows.to_dict(as_series=False), found


def scored(scores: Scores, name: str) -> object:
    while "scores" not in (found := scores.get(name)):
        time.sleep(0.001)
    return found


def schedule() -> object:
    return import_module("flows.schedule").read_schedule(SCHEDULE)


def pipeline() -> object:
    """What the recurring run reads itself before and after the stages."""
    flow = import_module("flows.pipeline")
    import_module("flows.stale_runs").remove_stale_locks()
    return [flow.headline(name) for name in ("targets", "predictor", "studies@edits")]


READERS: dict[str, Callable[[], object]] = {
    "dataset": stage("dataset"),
    "subsets": stage("subsets"),
    "targets": targets,
    "predictor": stage("predictor"),
    "study": study("valuation"),
    "report": stage("report"),
    "publish": publish,
    "published": published,
    "check-params": command("check-params"),
    "summary": command("summary"),
    "list": command("registry", "list"),
    "show": command("registry", "show", NAME),
    "promote": command("registry", "promote", NAME, "1"),
    "rebuild": command("registry", "rebuild"),
    "fingerprint": command("registry", "fingerprint"),
    "lds": command("lds", str(MATRIX)),
    "serving": served,
    "load": loaded(SAVED),
    "load run": loaded(Path()),
    "page": page,
    "schedule": schedule,
    "pipeline": pipeline,
}

"""A fit read from the artifacts of a pipeline's run, which its stages wrote."""

from pathlib import Path

from modelpred.api.files import Fitted, read_parts
from modelpred.api.labels import Labels
from modelpred.api.reading import Reading, levels_of
from modelpred.api.settings import Asked
from modelpred.dataset import read_dataset
from modelpred.engine import Engine, Plan, Prepared, problem_of
from modelpred.predictor import read_predictor
from modelpred.sealed import check_inputs, remake
from modelpred.subsets import SubsetsConfig

ARTIFACTS = "artifacts"


def is_run(folder: Path) -> bool:
    """Whether the folder is a project whose pipeline has run."""
    return (folder / ARTIFACTS).is_dir()


def read_run(folder: Path) -> tuple[Fitted, Asked]:
    """Read the fit of a project's last run, with the settings in its files.

    Raises:
        InvalidInput: a stage has not run, or its files are damaged or belong to another run.
    """
    artifacts = folder / ARTIFACTS
    dataset = read_dataset(artifacts / "dataset")
    for stage in ("targets", "predictor"):
        check_inputs(artifacts / stage, again=remake(stage))
    predictor = read_predictor(artifacts / "predictor")
    targets = read_parts(artifacts, dataset, predictor, {}, again=remake("predictor"))
    model, tolerance = predictor.model, predictor.tolerance
    levels = levels_of(dataset.encoding, dataset.rows)
    kind = "text" if dataset.classes else "number"
    labels = Labels(kind, dataset.classes)
    problem = problem_of(model, predictor.points, tolerance=tolerance, row_ids=dataset.row_ids)
    prepared = Prepared(targets, predictor)
    fitted = Fitted(
        dataset,
        Reading(dataset.encoding, True, dataset.scaling, labels, levels),  # noqa: FBT003
        Engine(
            problem,
            Plan(SubsetsConfig().for_points(len(dataset.row_ids)), predictor.config),
            prepared,
        ),
    )
    asked = Asked(
        target=model.name,
        settings={**model.settings, "tolerance": tolerance},
        scaling=dataset.scaling.name,
        seed=0,
        subsets=SubsetsConfig(),
        predictor=predictor.config,
        progress=True,
    )
    return fitted, asked

"""Publishes a predictor: registers its files once, checks the gates, sets its alias.

A version is keyed by the fingerprint of the predictor's files, so that publishing twice makes one version. It carries
its lineage (code, data and parameters it follows from) and its held-out errors. The gates decide whether it becomes
`champion`, the version that users load, or `challenger`, with the reasons as a tag. The gates are checked again when
their evidence has changed: a calibration measured since, other gates.

A version whose files are gone, because the project moved, is registered again.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelpred.predictor import Predictor, predictor_fingerprint, read_predictor
from modelpred.registry.gates import Contest, Evidence, GatesConfig, compare, judge
from modelpred.registry.records import LONGEST_RUN_TAG, Lineage, lineage_tags, log_run, register
from modelpred.registry.snapshot import read_snapshot, restore, write_snapshot
from modelpred.registry.store import intact, locked, opened, predictor_folder, registered_name
from modelpred.registry.versions import (
    CHALLENGER,
    CHAMPION,
    FINGERPRINT_TAG,
    GATES_TAG,
    REASON_TAG,
    Version,
    crown,
)
from modelpred.targets import Points
from modelpred.targets.bank import Bank

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# The evidence that was checked; set last, so that an interrupted publication is done again.
EVIDENCE_TAG = "gates_evidence"
CONTEST_TAG = "gates_champion"


def publish(
    folder: Path,
    *,
    dataset_name: str,
    evidence: Evidence,
    lineage: Lineage,
    gates: GatesConfig,
    root: Path,
    held_out: Bank | None = None,
    test_points: Points | None = None,
) -> Version:
    """Register a predictor's files and set their alias; do nothing if that is done already.

    Safe to repeat, to interrupt and to run twice at once.

    Args:
        folder: what `write_predictor` wrote.
        dataset_name: names the registered model, together with the target model.
        evidence: what the gates check; the comparison with the present champion is added here.
        lineage: what the predictor follows from.
        gates: what makes it champion.
        root: the project's root, which holds `mlflow.db` and `mlruns`.
        held_out: subsets with their trained parameters for the comparison with the present champion.
        test_points: rows on which the registered version computes the mean loss of predicted models.

    Raises:
        InvalidInput: the folder holds no valid predictor.
    """
    predictor = read_predictor(folder)
    name = registered_name(dataset_name, predictor.model.name)
    fingerprint = predictor_fingerprint(folder)
    digest = evidence.digest(gates)
    with locked(root), opened(root) as client:
        snapshot = read_snapshot(root)
        if snapshot is not None:
            restore(client, root, snapshot)
        found = _find(client, name, fingerprint)
        if found is not None and found.tags.get(EVIDENCE_TAG) == digest:
            return _told(client, found, created=False)
        created = found is None
        if found is None:
            run = log_run(client, name, metrics=evidence.held_out, lineage=lineage, root=root)
            found = register(
                client,
                name,
                predictor,
                folder,
                run_id=run,
                tags={FINGERPRINT_TAG: fingerprint, **lineage_tags(lineage)},
                test_points=test_points,
            )
        contest = _contest(client, found, predictor, held_out, gates)
        _decide(client, found, replace(evidence, contest=contest), gates)
        client.set_model_version_tag(name, found.version, EVIDENCE_TAG, digest)
        write_snapshot(client, root)
        return _told(client, found, created=created)


def _contest(
    client: "MlflowClient",
    found: "ModelVersion",
    predictor: Predictor,
    held_out: Bank | None,
    gates: GatesConfig,
) -> Contest | None:
    """Comparison of the version with the current champion; None if there is no other champion."""
    number = client.get_registered_model(found.name).aliases.get(CHAMPION)
    if number is None or str(number) == str(found.version):
        return None
    champion = client.get_model_version(found.name, str(number))
    if not intact(str(champion.source), champion.tags.get(FINGERPRINT_TAG, "")):
        return Contest(int(number), different="its files are gone or damaged")
    if held_out is None:
        return Contest(int(number))
    other = read_predictor(predictor_folder(str(champion.source)))
    return compare(predictor, other, held_out, version=int(number), designs=gates.designs)


def _decide(
    client: "MlflowClient", found: "ModelVersion", evidence: Evidence, gates: GatesConfig
) -> None:
    """Tags the version with what the gates say and moves the alias that follows from it."""
    passes, reasons = judge(evidence, gates)
    tags = {
        GATES_TAG: "passed" if passes else "failed",
        REASON_TAG: "; ".join(reasons)[:LONGEST_RUN_TAG],
        CONTEST_TAG: _told_contest(evidence.contest),
    }
    for tag, value in tags.items():
        client.set_model_version_tag(found.name, found.version, tag, value)
    if passes:
        crown(client, found.name, int(found.version))
    elif str(client.get_registered_model(found.name).aliases.get(CHAMPION)) != str(found.version):
        client.set_registered_model_alias(found.name, CHALLENGER, found.version)


def _told_contest(contest: Contest | None) -> str:
    if contest is None:
        return "no champion to compare with"
    if contest.different:
        return f"not comparable with version {contest.champion}: {contest.different}"
    differences = ", ".join(
        f"{design} {one.mean:+.3g} ({one.low:+.3g} to {one.high:+.3g})"
        for design, one in contest.differences.items()
    )
    return (
        f"parameter error minus that of version {contest.champion}: {differences or 'not measured'}"
    )


def _find(client: "MlflowClient", name: str, fingerprint: str) -> "ModelVersion | None":
    """The version that holds these files, the latest first; versions whose files are gone do not count."""
    versions = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.tags.get(FINGERPRINT_TAG) == fingerprint
        and intact(str(version.source), fingerprint)
    ]
    return max(versions, key=lambda version: int(version.version), default=None)


def _told(client: "MlflowClient", version: "ModelVersion", *, created: bool) -> Version:
    whole = client.get_model_version(version.name, version.version)
    return Version(
        name=whole.name,
        version=int(whole.version),
        created=created,
        aliases=tuple(sorted(whole.aliases)),
        reasons=tuple(filter(None, whole.tags.get(REASON_TAG, "").split("; "))),
    )

"""Makes a project for a table: the folder, and params.yaml with all that was decided.

    params.yaml            the settings; edit them and run `modelpred run` in the folder
    .modelpred/plan.json   the options and the size of the table that the settings were chosen for

The same options for a table of the same size keep params.yaml as it is, so that a second run repeats
only what has changed.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from modelpred.check.budget import trial_within
from modelpred.check.decisions import Decision
from modelpred.check.estimate import usual_subsets
from modelpred.check.inspection import Checked, check, config_of, decisions_text, section_text
from modelpred.check.plan import Plan, plan
from modelpred.check.plan_file import PLAN, PlanFile, known_plan, write_plan
from modelpred.check.trial import speeds, start_seconds
from modelpred.dataset import Dataset, DatasetConfig, prepare_table
from modelpred.dataset.openml import PREFIX
from modelpred.dataset.places import looks_like_path
from modelpred.errors import InvalidInput
from modelpred.memory import available_memory, size_text
from modelpred.numbers import checked_section
from modelpred.progress import Progress
from modelpred.sealed import write_atomically
from modelpred.targets import TargetsConfig
from modelpred.targets.devices import parse_devices
from modelpred.targets.families import FAMILIES
from modelpred.targets.regularisation import choose_c
from modelpred.targets.threads import torch_threads
from modelpred.wording import counted, time_words

TRIAL_SECONDS = (8.0, 20.0)
TRIAL_SHARE = 0.06  # of the time of the run
MOST_SLOWDOWN = 8.0  # by other programs: more of it is taken for a passing state of the machine
FEWER = 0.85  # share of the rows that is tried next
LEAST_ROWS = 300  # training rows below which the time is not kept
BUSY = 1.25  # slowdown from which a note is printed
AUTO = "auto"

Bar = Callable[[str, float | None], AbstractContextManager[Progress]]
"""(what is done, the seconds that it takes at most if they are known)"""


@dataclass(frozen=True)
class Options:
    """The options of `modelpred run` and `modelpred check` for a file."""

    source: str
    label: str | None
    row_id: str | None
    group: str | None
    drop: tuple[str, ...]
    categories: tuple[str, ...]
    dates: tuple[str, ...]
    test: str
    max_points: int | None
    delimiter: str
    model: str
    C: str
    minutes: float

    def config(self) -> DatasetConfig:
        """The options on the table as a config."""
        return config_of(
            source=self.source, label=self.label, row_id=self.row_id, group=self.group,
            drop=self.drop, categories=self.categories, dates=self.dates, test=self.test,
            max_points=self.max_points or None, delimiter=self.delimiter,
        )  # fmt: skip


@dataclass(frozen=True)
class Proposal:
    """The settings for a table.

    Attributes:
        config: of the table.
        targets: of the models.
        plan: of the stages.
        spent: seconds of the trial and of the choice of C, which the plan does not include.
        decisions: everything that was decided.
    """

    config: DatasetConfig
    targets: TargetsConfig
    plan: Plan
    spent: float
    decisions: tuple[Decision, ...]

    @property
    def time_text(self) -> str:
        """The expected time, disk space and memory, in one line."""
        available = available_memory()
        lacks = "; that is too much, use fewer rows (--max-points)"
        return (
            f"The run takes about {time_words(self.spent + self.plan.total)} on this machine "
            f"({time_words(self.spent)} of it for a trial like that of this command), "
            f"{self.plan.disk / 1e6:,.0f} MB of disk, and up to {size_text(round(self.plan.memory))} "
            f"of memory ({size_text(available)} are available"
            f"{lacks if self.plan.memory > available else ''})."
        )


@dataclass(frozen=True)
class Prepared:
    """A folder that is ready to run, and the studies to leave out."""

    folder: Path
    skipped: tuple[str, ...]


def inspect(options: Options) -> Checked:
    """The table of the options, inspected.

    Raises:
        InvalidInput: the table or an option cannot be used.
    """
    checked = check(options.config())
    _targets(options, checked, strength=1.0)
    return checked


def propose(checked: Checked, options: Options, *, bar: Bar) -> Proposal:
    """Choose C and the settings of all stages, by a trial on some of the rows.

    If even the smallest settings take too long and the options do not say how many rows to use,
    fewer rows are used.

    Raises:
        InvalidInput: the rows cannot be trained on.
    """
    started = time.perf_counter()
    most = trial_seconds(options.minutes)
    with bar("choosing settings", most) as report, torch_threads(1):
        dataset = prepare_table(checked.table, checked.config)
        targets, strength = with_strength(dataset, options, checked)
        report(0, 4, "training a few models")
        start = start_seconds()
        began, busy = time.perf_counter(), time.process_time()
        # In processor time, which other programs on the machine disturb little.
        measure = partial(
            speeds,
            planned=usual_subsets(6500),
            start=0.0,
            clock=time.process_time,
            progress=lambda done, total, what: report(1 + done, 1 + total, what),
            targets=targets,
        )
        found = trial_within(
            dataset,
            measure,
            seconds=most,
            targets=targets,
            clock=time.process_time,
        )
        slowdown = slowdown_since(began, busy)

    model = targets.build(classes=len(checked.table.classes))
    spent = time.perf_counter() - started
    seconds = 60 * options.minutes - spent

    def planned(points: int, tests: int) -> Plan:
        return plan(
            replace(found.at(points), start=start / slowdown),
            points=points,
            tests=tests,
            cores=len(parse_devices("cpu")),
            seconds=seconds,
            slowdown=slowdown,
            memory=found.memory_at(points),
            optimum=model.optimum is not None,
        )

    chosen = planned(checked.points, checked.tests)
    if options.max_points is None:
        share = share_in_time(planned, points=checked.points, tests=checked.tests, seconds=seconds)
        if share < 1:
            with bar(f"reading {options.source}", None):
                checked = with_share(checked, options, share)
            chosen = planned(checked.points, checked.tests)
    return Proposal(
        checked.config,
        targets,
        chosen,
        spent,
        (
            Decision("predicts", _label(checked), "--label"),
            Decision("model", f"{model.name}{strength}", "--model, --C"),
            *checked.decisions,
            Decision("models to train", f"{chosen.subsets:,}, on random subsets", "--minutes"),
            Decision(
                "time",
                f"about {time_words(spent + chosen.total)}{busy_words(slowdown)}",
                "--minutes",
            ),
            *(
                Decision("left out", f"the study {name}, which takes too long here", "--minutes")
                for name in chosen.skipped
            ),
        ),
    )


def trial_seconds(minutes: float) -> float:
    """Seconds of processor time for the trial of a run of so many minutes."""
    shortest, longest = TRIAL_SECONDS
    return min(longest, max(shortest, TRIAL_SHARE * 60 * minutes))


def share_in_time(
    planned: Callable[[int, int], Plan], *, points: int, tests: int, seconds: float
) -> float:
    """The largest share of the rows with which a run ends in time and has the memory."""
    available = available_memory()

    def fits(share: float) -> bool:
        found = planned(round(share * points), round(share * tests))
        return found.total <= seconds and found.memory <= available

    return largest_share(fits, points=points)


def largest_share(fits: Callable[[float], bool], *, points: int) -> float:
    """The largest share of the rows that fits; if none does, the least that may be used."""
    share = 1.0
    while share * FEWER * points >= LEAST_ROWS and not fits(share):
        share *= FEWER
    return share


def with_share(checked: Checked, options: Options, share: float) -> Checked:
    """The table of the options with a share of its rows, inspected again."""
    used = max(2, round(share * len(checked.table.rows)))
    return inspect(replace(options, max_points=used))


def slowdown_since(began: float, busy: float) -> float:
    """Seconds that pass in a second of processor time, because of other programs.

    Args:
        began: start of the measurement, by time.perf_counter.
        busy: the same, by time.process_time.
    """
    waited = (time.perf_counter() - began) / max(1e-3, time.process_time() - busy)
    return min(MOST_SLOWDOWN, max(1.0, waited))


def with_strength(
    dataset: Dataset, options: Options, checked: Checked
) -> tuple[TargetsConfig, str]:
    """The models' settings with C, and how C was chosen.

    Raises:
        InvalidInput: the model does not fit the label.
    """
    config = _targets(options, checked, strength=1.0)
    model = config.build(classes=len(checked.table.classes))
    if "C" not in model.setting_names():
        return config, ""
    found = choose_c(dataset, config) if options.C == AUTO else None
    if found is None:
        return config, f", C = {_strength(config):g}"
    tried = ", ".join(f"{value:g}" for value in found.losses)
    config = config.model_copy(update={"C": found.C})
    return config, f", C = {found.C:g} (lowest loss of held-out rows among {tried})"


def _label(checked: Checked) -> str:
    classes = len(checked.table.classes)
    return f"{checked.table.label} ({counted(classes, 'class', several='classes') if classes else 'a number'})"


def busy_words(slowdown: float) -> str:
    """How much other programs leave of the processor; empty if they leave almost all."""
    return f"; other programs leave {1 / slowdown:.0%} of a core" if slowdown > BUSY else ""


def _strength(config: TargetsConfig) -> float:
    return float(config.model_dump()["C"])


def _targets(options: Options, checked: Checked, *, strength: float) -> TargetsConfig:
    """The models' settings; InvalidInput where the model does not fit the label."""
    if options.model != AUTO and options.model not in FAMILIES:
        raise InvalidInput(
            f"--model: unknown {options.model!r}; known: auto, {', '.join(FAMILIES)}"
        )
    try:
        strength = strength if options.C == AUTO else float(options.C)
    except ValueError as error:
        raise InvalidInput(f"--C: expected a number above 0 or auto, got {options.C!r}") from error
    config = checked_section(TargetsConfig, {"model": options.model, "C": strength})
    config.build(classes=len(checked.table.classes))
    return config


def section_texts(proposal: Proposal) -> str:
    """The sections of params.yaml that differ from the defaults."""
    targets = {"model": proposal.targets.model, "C": _strength(proposal.targets)}
    sections = {
        "dataset": proposal.config.model_dump(),
        "targets": targets,
        **proposal.plan.sections,
    }
    return "\n\n".join(section_text(name, content) for name, content in sections.items())


def prepare_project(
    options: Options, out: Path | None, *, tell: Callable[[str], None], bar: Bar
) -> Prepared:
    """Make the folder of a run, or find it as an earlier run with these options made it.

    Args:
        options: of the command.
        out: the folder; None: named after the table, in the current folder.
        tell: called with each text for the user.
        bar: shows how far a step is.

    Raises:
        InvalidInput: the table cannot be used, or the folder holds something else.
    """
    with bar(f"reading {options.source}", None):
        checked = inspect(options)
    tell(f"{checked.head}\n{checked.outlook}\n")
    folder = out or Path(f"{checked.table.name}-modelpred")
    size = [checked.points, checked.tests, checked.features, len(checked.table.classes)]
    asked_for = relative_to(checked.config, folder)
    asked = {"options": asdict(options), "size": size, "dataset": asked_for.model_dump(mode="json")}
    asked = json.loads(json.dumps(asked))
    known = known_plan(folder)
    if known is not None and known.asked == asked and (folder / "params.yaml").is_file():
        tell(f"{folder / 'params.yaml'} is kept as it is.")
        return Prepared(folder, tuple(known.skipped))
    proposal = propose(checked, options, bar=bar)
    tell(f"{decisions_text(proposal.decisions)}\n")
    (folder / PLAN).parent.mkdir(parents=True, exist_ok=True)
    text = section_texts(replace(proposal, config=relative_to(proposal.config, folder)))
    head = (
        f"# Made by `modelpred run {options.source}`. Keys that are left out have their defaults.\n"
        "# Edit this file and run `modelpred run` in this folder: only what depends on a change runs again.\n\n"
    )
    write_atomically(folder / "params.yaml", f"{head}{text}\n".encode())
    found = PlanFile(
        asked=asked,
        skipped=list(proposal.plan.skipped),
        seconds=dict(proposal.plan.seconds),
        decisions=[decision._asdict() for decision in proposal.decisions],
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
    )
    write_plan(found, folder)
    return Prepared(folder, proposal.plan.skipped)


def relative_to(config: DatasetConfig, folder: Path) -> DatasetConfig:
    """The config with its paths seen from the folder."""
    paths = {key: getattr(config, key) for key in ("source", "test", "watch")}
    changes = {
        key: os.path.relpath(path, folder)
        for key, path in paths.items()
        if isinstance(path, str)
        and path != AUTO
        and not path.startswith(PREFIX)
        and looks_like_path(path)
    }
    return config.model_copy(update=changes)

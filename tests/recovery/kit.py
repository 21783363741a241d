"""What a month of operation does to a project, in minutes: kills, full disks, lost permissions, damaged files.

    python -m tests.recovery.kit                     everything, into RESULTS.md's section (about 20 min)
    python -m tests.recovery.kit --kills 2 --only kills twice --no-write

Each trial takes a small project (iris, four stages) to a state, disturbs it, and then lets it run normally. It counts
as recovered only if that run ends well and leaves the bytes of an undisturbed run: every shard, the manifest, the
predictor's two files, one registered version with their fingerprint, exactly the shards of this version in the store,
no unfinished folder and no lock that a human must take away. Errors on the way must be told without a traceback.

    kills        SIGKILL at a random moment of the stage's usual time, several times in a row, each on what the one
                 before left: of targets, predictor, publish, and of the pipeline, there in turn the run's process
                 alone and all of its processes
    damage       a byte flipped, or the end cut off, at a random place of: shards in the store, shards of the version,
                 the manifest, the predictor's two files
    disk         the store, the artifacts or the registry on a full disk (a small tmpfs; root only)
    permission   the same places read-only (a bind mount for root, chmod otherwise)
    twice        two pipelines started at once
"""

import argparse
import ast
import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from tests.benchmarks.results import write_section
from tests.projects import iris_params, small_project

ROOT = Path(__file__).parents[2]
SECTION = "## Recovery"
PARAMS = iris_params(fit=600, held_out=50, block=25, epochs=4, error=0.9)
BLOCKS = 28
KEPT = ("dataset", "subsets", "targets", "predictor")
# What a run leaves that says how long it took, and so differs from run to run.
TIMED = {"fidelity", "history", "errors", "metrics", "SHA256SUMS"}
PATIENCE = 600.0
STAGES = ("targets", "predictor", "publish", "pipeline")


@dataclass
class Project:
    """A copy of the code with small params, as a user has it after cloning."""

    folder: Path
    api: str

    @classmethod
    def made(cls, folder: Path, api: str) -> "Project":
        """Copies the code, without the studies, under git."""
        small_project(folder, PARAMS, stages=KEPT)
        return cls(folder, api)

    def copied(self, folder: Path) -> "Project":
        """The same project elsewhere."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.api)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command in the project, in a session of its own."""
        ours = ("PREFECT_", "MLFLOW_", "MODELPRED_", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        further = {
            "PATH": programs,
            "MODELPRED_DEVICES": "cpu:1",
            "PREFECT_API_URL": self.api,
            "PREFECT_API_AUTH_STRING": os.environ["PREFECT_API_AUTH_STRING"],
        }
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=kept | further,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str) -> tuple[int, str]:
        """A command to its end: exit status and what it said."""
        process = self.start(*command)
        said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said

    def stage(self, name: str) -> tuple[str, ...]:
        """The command of a stage, of publish or of the pipeline."""
        return (sys.executable, "-m", f"flows.{name}")

    def state(self) -> dict[str, object]:
        """What two runs must agree on, and what must not be left over."""
        artifacts = self.folder / "artifacts"
        files = {
            str(path.relative_to(artifacts)): path.read_bytes()
            for path in sorted(artifacts.rglob("*"))
            if path.is_file() and path.stem not in TIMED
        }
        unfinished = [path.name for path in artifacts.glob(".*") if path.is_dir()]
        store = self.folder / ".modelpred" / "shards"
        return {
            "files": files,
            "unfinished folders": unfinished,
            "shards in the store": sorted(path.name for path in store.rglob("*.parquet")),
        }

    def versions(self) -> list[tuple[int, tuple[str, ...], str]]:
        """The registered versions, asked in a process of their own."""
        code = (
            "from pathlib import Path; from modelpred.registry import list_versions; "
            "print([(r.version, r.aliases, r.fingerprint) for r in list_versions(Path())])"
        )
        status, said = self.run(sys.executable, "-c", code)
        assert status == 0, said
        return ast.literal_eval(said.splitlines()[-1])


@dataclass
class Trial:
    """One disturbance and what came of it."""

    kind: str
    what: str
    outcome: str = "recovered"
    said: str = ""
    kills: int = 0


@dataclass
class Kit:
    """A finished project to copy, and the trials that were made with it."""

    place: Path
    api: str
    generator: np.random.Generator
    done: Project = field(init=False)
    expected: dict[str, object] = field(init=False)
    fingerprints: list[tuple[int, tuple[str, ...], str]] = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    def prepare(self) -> None:
        """The undisturbed run, stage by stage, timed."""
        self.done = Project.made(self.place / "done", self.api)
        began = time.monotonic()
        for stage in (*KEPT, "publish"):
            since = time.monotonic()
            command = ("dvc", "repro", stage) if stage in KEPT else self.done.stage(stage)
            status, said = self.done.run(*command)
            assert status == 0, said
            self.seconds[stage] = time.monotonic() - since
        self.seconds["pipeline"] = time.monotonic() - began
        self.expected = self.done.state()
        self.fingerprints = self.done.versions()
        assert len(self.expected["shards in the store"]) == BLOCKS

    @contextmanager
    def project(self, *without: str) -> Iterator[Project]:
        """A copy of the finished project that lacks some of its parts, gone afterwards."""
        folder = self.place / f"trial-{len(self.trials)}"
        project = self.done.copied(folder)
        for part in without:
            for path in folder.glob(part):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield project
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def note(self, trial: Trial, project: Project, *, published: bool = False) -> None:
        """Judges what a trial's normal run left."""
        state = project.state()
        wrong = [name for name, value in state.items() if value != self.expected[name]]
        if published and project.versions() != self.fingerprints:
            wrong.append(f"registered versions {project.versions()}")
        if "Traceback" in trial.said:
            wrong.append("a traceback")
        if wrong:
            trial.outcome = f"NOT RECOVERED: {', '.join(wrong)}"
        self.trials.append(trial)
        print(f"{trial.kind:<11} {trial.what:<55} {trial.outcome}  {last(trial.said)}", flush=True)

    def failed(self, trial: Trial, said: str) -> None:
        """A normal run that did not end well."""
        trial.outcome, trial.said = "NOT RECOVERED: the normal run failed", said
        self.trials.append(trial)
        print(f"{trial.kind:<11} {trial.what:<55} {trial.outcome}\n{said}", flush=True)


def last(said: str) -> str:
    """The last line that says something."""
    return next((line for line in reversed(said.splitlines()) if line.strip()), "")[:150]


# What a project lacks before a stage runs in it.
LACKING = {
    "targets": ("artifacts/targets", ".modelpred/shards"),
    "predictor": ("artifacts/predictor",),
    "publish": ("mlflow.db", "mlruns", ".modelpred/published.json"),
    "pipeline": ("artifacts", ".modelpred/shards", "mlflow.db", "mlruns", "dvc.lock", ".dvc/cache"),
}


def kill(kit: Kit, stage: str, times: int) -> None:
    """Kills a stage so many times at random moments of its usual time, then runs it normally."""
    lacking = (*LACKING[stage], ".dvc/tmp", ".modelpred/published.json", ".modelpred/run.lock")
    trial = Trial("kills", "")
    killed: list[str] = []
    with kit.project(*lacking) as project:
        for number in range(times):
            moment = kit.generator.uniform(0.0, kit.seconds[stage])
            process = project.start(*project.stage(stage))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            if process.poll() is None:
                killed.append(f"{moment:.1f}")
                if stage == "pipeline" and number % 2:
                    for child in psutil.Process(process.pid).children(recursive=True):
                        child.kill()
                process.send_signal(signal.SIGKILL)
            process.communicate()
            wait_for_what_works_on(project)
        trial.kills = len(killed)
        trial.what = f"{stage}, {len(killed)} times, after {', '.join(killed)} s"
        status, said = project.run(*project.stage(stage))
        if status:
            kit.failed(trial, said)
        else:
            kit.note(trial, project, published=stage in ("publish", "pipeline"))


def wait_for_what_works_on(project: Project) -> None:
    """Waits until the commands of a killed pipeline have ended: they hold its lock."""
    lock = project.folder / ".modelpred" / "run.lock"
    if not lock.exists():
        return
    end = time.monotonic() + PATIENCE
    with lock.open("a") as file:
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.5)


def chosen(paths: list[Path], generator: np.random.Generator) -> Path:
    """One of the paths."""
    return paths[int(generator.integers(len(paths)))]


def damaged(path: Path, how: str, generator: np.random.Generator) -> None:
    """Flips a bit, or cuts the file, at a random place."""
    content = bytearray(path.read_bytes())
    at = int(generator.integers(len(content)))
    if how == "flipped":
        content[at] ^= 1 << int(generator.integers(8))
    else:
        content = content[:at]
    path.chmod(0o644)
    path.write_bytes(content)


def damage(kit: Kit, pattern: str, how: str, reader: str, mender: tuple[str, ...]) -> None:
    """Damages a file, lets its reader meet it, then runs normally."""
    trial = Trial("damage", f"{pattern.rpartition('/')[2]} ({pattern.split('/')[-2]}) {how}")
    with kit.project(".modelpred/published.json") as project:
        path = chosen(sorted(project.folder.glob(pattern)), kit.generator)
        damaged(path, how, kit.generator)
        status, trial.said = project.run(*project.stage(reader))
        if status and path.name not in trial.said:
            trial.said += f"\nTraceback: the message does not name {path.name}"
        status, said = project.run(*mender)
        if status == 0 and mender[0] == "dvc":
            status, said = project.run(*project.stage("publish"))
        if status:
            kit.failed(trial, said)
        else:
            kit.note(trial, project, published=True)


DAMAGED = (
    (".modelpred/shards/*/*.parquet", "targets", ("dvc", "repro")),
    ("artifacts/targets/*.parquet", "predictor", ("dvc", "repro")),
    ("artifacts/targets/manifest.json", "predictor", ("dvc", "repro")),
    ("artifacts/predictor/predictor.safetensors", "publish", ("dvc", "repro")),
    ("artifacts/predictor/predictor.json", "publish", ("dvc", "repro")),
)
PLACES = (
    ("targets", ".modelpred/shards"),
    ("targets", "artifacts"),
    ("predictor", "artifacts"),
    ("publish", "mlruns"),
)


@contextmanager
def full(folder: Path) -> Iterator[Callable[[], None]]:
    """The folder on a disk that is all but full; calling what it gives makes room."""
    content = folder.with_name(folder.name + ".kept")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, content)
    # A page of 4 KiB more than each file takes, for its folder; the rest is filled up.
    pages = 16 + sum(
        2 + path.stat().st_size // 4096 for path in content.rglob("*") if path.is_file()
    )
    mount("-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", folder)
    try:
        shutil.copytree(content, folder, dirs_exist_ok=True)
        with (folder / ".filling").open("wb", buffering=0) as filling, contextlib.suppress(OSError):
            while True:
                filling.write(b"0" * 4096)

        def make_room() -> None:
            (folder / ".filling").unlink()
            mount("-o", "remount,size=64m", folder)

        yield make_room
    finally:
        kept = folder.with_name(folder.name + ".after")
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns(".filling"))
        subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)
        kept.replace(folder)
        shutil.rmtree(content)


@contextmanager
def read_only(folder: Path) -> Iterator[Callable[[], None]]:
    """The folder without write permission; calling what it gives returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    root = os.geteuid() == 0
    back = [False]
    if root:
        mount("--bind", folder, folder)
        mount("-o", "remount,ro,bind", folder)
    else:
        folder.chmod(0o555)

    def restore() -> None:
        if not back[0]:
            back[0] = True
            if root:
                subprocess.run(["umount", str(folder)], check=True)
            else:
                folder.chmod(0o755)

    try:
        yield restore
    finally:
        restore()


def mount(*arguments: object) -> None:
    """Mounts, as root."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def refused(kit: Kit, kind: str, stage: str, place: str) -> None:
    """A stage meets a place that it cannot write to, then runs normally there."""
    trial = Trial(kind, f"{stage}, {place}")
    with kit.project(*LACKING[stage], ".modelpred/published.json") as project:
        with (full if kind == "disk" else read_only)(project.folder / place) as give_back:
            status, trial.said = project.run(*project.stage(stage))
            if status == 0:
                trial.said += "\nTraceback: nothing was said"
            give_back()
            status, said = project.run(*project.stage(stage))
        if status:
            kit.failed(trial, said)
        else:
            kit.note(trial, project, published=stage == "publish")


def twice(kit: Kit) -> None:
    """Two pipelines started at once: one runs, the other says so."""
    trial = Trial("twice", "two pipelines at once")
    with kit.project(*LACKING["pipeline"], ".dvc/tmp", ".modelpred/published.json") as project:
        both = [project.start(*project.stage("pipeline")) for _ in range(2)]
        said = [process.communicate(timeout=PATIENCE)[0] for process in both]
        ended = sorted(
            (process.returncode, last(text)) for process, text in zip(both, said, strict=True)
        )
        trial.said = ended[1][1]
        if ended[0][0] != 0 or ended[1][0] == 0 or "another run is under way" not in ended[1][1]:
            kit.failed(trial, "\n".join(said))
            return
        status, after = project.run(*project.stage("pipeline"))
        if status or "nothing changed" not in after:
            kit.failed(trial, after)
        else:
            kit.note(trial, project, published=True)


SERIES = {"targets": 3, "predictor": 2, "publish": 2, "pipeline": 2}  # of kills in a row


def all_trials(kit: Kit, *, only: list[str], stages: list[str], kills: int, damages: int) -> None:
    """Every kind of disturbance that is asked for."""
    plan: dict[str, list[Callable[[], None]]] = {
        "kills": [
            partial(kill, kit, stage, kills)
            for stage, series in SERIES.items()
            if stage in stages
            for _ in range(series)
        ],
        "damage": [
            partial(damage, kit, pattern, how, reader, mender)
            for pattern, reader, mender in DAMAGED
            for how in ("flipped", "cut")
            for _ in range(damages)
        ],
        "disk": [partial(refused, kit, "disk", *place) for place in PLACES],
        "permission": [partial(refused, kit, "permission", *place) for place in PLACES],
        "twice": [partial(twice, kit)] * 2,
    }
    for kind in only:
        for trial in plan[kind]:
            trial()


def section(kit: Kit) -> str:
    """The counts as a section of RESULTS.md."""
    tried = Counter((trial.kind, trial.what.split()[0].rstrip(",")) for trial in kit.trials)
    good = Counter(
        (trial.kind, trial.what.split()[0].rstrip(","))
        for trial in kit.trials
        if trial.outcome == "recovered"
    )
    rows = [
        f"| {kind} | {what} | {tried[kind, what]} | {good[kind, what]} |" for kind, what in tried
    ]
    killed = sum(trial.kills for trial in kit.trials)
    head = [
        "`python -m tests.recovery.kit`: iris, four stages, 28 shards; what each kind does stands in the",
        f"script. {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}. Recovered: a normal",
        "run afterwards ended with the bytes of an undisturbed one, nothing lost, doubled or locked, and",
        f"no traceback on the way. In all {len(kit.trials)} trials, {sum(good.values())} recovered;",
        f"{killed} processes were killed.",
    ]
    return "\n".join(
        [
            SECTION,
            "",
            *head,
            "",
            "| disturbance | of | trials | recovered |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Makes the trials and reports them."""
    kinds = ("kills", "damage", "disk", "permission", "twice")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=6, help="in each of the nine series")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=STAGES)
    parser.add_argument("--damages", type=int, default=2, help="of each file and kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(kinds), choices=kinds)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="modelpred-recovery-") as folder,
        made(Path(folder), seed=options.seed) as kit,
    ):
        all_trials(
            kit,
            only=options.only,
            stages=options.stages,
            kills=options.kills,
            damages=options.damages,
        )
    told = section(kit)
    print(told)
    if not options.no_write:
        write_section(told)
    sys.exit(any(trial.outcome != "recovered" for trial in kit.trials))


@contextmanager
def made(place: Path, *, seed: int) -> Iterator[Kit]:
    """A kit with its finished project; one Prefect server is used by all trials."""
    from flows.server import prefect_api  # noqa: PLC0415

    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(place / "prefect")
    with prefect_api() as url:
        kit = Kit(place, url, np.random.default_rng(seed))
        kit.prepare()
        yield kit


if __name__ == "__main__":
    main()

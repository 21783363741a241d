"""Runs the kernels that are compiled for aarch64, under qemu, on calls recorded here, and compares results.

    make aarch64        needs gcc-aarch64-linux-gnu and qemu-user

Models are trained with this machine's plain kernels while every call is recorded. The replay runs the same calls
with kernels of another compiler. Everything that is written must agree: to the last bit when the replay is compiled
for this machine; up to rounding for aarch64, whose fused products round once.
"""

import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelpred.targets import target_model, train_targets
from modelpred.targets.compiled import kernels
from modelpred.targets.compiled.kernels import Shared

FOLDER = Path(kernels.__file__).parent
REPLAY = Path(__file__).with_name("replay.c")
FLAGS = ("-O3", "-fno-math-errno", "-fPIC")
NATIVE = ("gcc", ())
AARCH64 = ("aarch64-linux-gnu-gcc", ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"))
# Of the largest number: float32 products round to 1e-7, and Newton's method ends in float64.
AGREES = {
    "modelpred_newton": 1e-9,
    "modelpred_softmax": 1e-9,
    "modelpred_momentum": 1e-6,
    "modelpred_start": 1e-6,
}
PROBLEMS = 40
WRITTEN = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.int64: np.int64,
    torch.bool: np.uint8,
}


class Recorder:
    """Records calls of kernels, with the memory that they read and what they wrote."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.written: list[dict[str, Tensor]] = []

    def record(
        self, shared: Shared, name: str, arguments: dict[str, Tensor | float | None]
    ) -> None:
        """Record a call before it writes."""
        parts = [name.encode().ljust(32, b"\0"), _sized(bytes(shared))]
        parts.append(struct.pack("q", len(shared._kept)))
        for field, tensor in shared._kept.items():
            place = getattr(type(shared), field).offset
            parts += [struct.pack("q", place), _sized(_bytes(tensor))]
        parts.append(struct.pack("q", len(arguments)))
        for value in arguments.values():
            if isinstance(value, Tensor):
                parts += [struct.pack("q", 1), _sized(_bytes(value))]
            elif value is None:
                parts.append(struct.pack("q", 0))
            elif isinstance(value, float):
                parts.append(struct.pack("qd", 2, value))
            else:
                parts.append(struct.pack("qq", 3, value))
        self.calls.append(b"".join(parts))

    def keep(self, arguments: dict[str, Tensor | float | None]) -> None:
        """Keep what the kernel wrote."""
        tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
        self.written.append({name: value.clone() for name, value in tensors.items()})


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def _sized(content: bytes) -> bytes:
    return struct.pack("q", len(content)) + content


def record() -> Recorder:
    """Train problems of every family with the plain kernels, recording the calls."""
    plain = kernels.loaded("plain")
    kernels.library = lambda: plain  # type: ignore[assignment]
    recorder, call = Recorder(), Shared.call

    def recorded(shared: Shared, name: str, signature: object, **arguments: object) -> None:
        recorder.record(shared, name, arguments)
        call(shared, name, signature, **arguments)
        recorder.keep(arguments)

    Shared.call = recorded  # type: ignore[method-assign]
    for seed in range(PROBLEMS):
        generator = np.random.default_rng(seed)
        points, features = int(generator.integers(8, 70)), int(generator.integers(1, 40))
        family = ("logistic", "svm", "ridge", "softmax", "mlp")[seed % 5]
        classes = {"logistic": 2, "svm": 2, "ridge": 0}.get(family, int(generator.integers(2, 6)))
        labels = generator.integers(0, max(classes, 2), points)
        labels[:classes] = np.arange(classes)
        settings = {"steps": 4, "hidden": 5} if family == "mlp" else {}
        train_targets(
            target_model(family, **settings),
            generator.normal(size=(points, features)),
            labels.astype(float) if family == "ridge" else labels,
            generator.integers(0, 3, size=(5, points)),
            classes=classes or None,
        )
    Shared.call = call
    return recorder


def replayed(
    recorder: Recorder, place: Path, compiler: str, runner: Iterable[str]
) -> list[dict[str, np.ndarray]]:
    """What kernels of this compiler write for the recorded calls."""
    library, program = place / "kernels.so", place / "replay"
    sources = [str(path) for path in sorted(FOLDER.glob("*.c"))]
    subprocess.run([compiler, *FLAGS, "-shared", *sources, "-lm", "-o", library], check=True)
    subprocess.run([compiler, "-O1", REPLAY, "-ldl", "-o", program], check=True)
    calls, results = place / "calls", place / "results"
    calls.write_bytes(struct.pack("q", len(recorder.calls)) + b"".join(recorder.calls))
    subprocess.run([*runner, program, library, calls, results], check=True)
    content, at = results.read_bytes(), 0
    found: list[dict[str, np.ndarray]] = []
    for written in recorder.written:
        arrays = {}
        for name, tensor in written.items():
            count = tensor.numel()
            arrays[name] = np.frombuffer(content, WRITTEN[tensor.dtype], count, at).reshape(
                tensor.shape
            )
            at += arrays[name].nbytes
        found.append(arrays)
    assert at == len(content)
    return found


def difference(written: dict[str, Tensor], found: dict[str, np.ndarray]) -> float:
    """The largest difference of two results, relative to the largest number of each; inf where flags differ."""
    worst = 0.0
    for name in written.keys() - {"gradient_norm", "iterations"}:  # rounding decides these
        ours, theirs = written[name].numpy(), found[name]
        if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
            return np.inf
        ours, theirs = (np.nan_to_num(each.astype(np.float64)) for each in (ours, theirs))
        size = np.abs(ours).max(initial=0.0) or 1.0
        worst = max(worst, float(np.abs(ours - theirs).max(initial=0.0)) / size)
    return worst


def compare(recorder: Recorder, where: str, compiler: str, runner: Iterable[str]) -> None:
    """Print the largest difference of each kernel; end the process if one is too large."""
    with tempfile.TemporaryDirectory() as place:
        found = replayed(recorder, Path(place), compiler, runner)
    worst: dict[str, list[float]] = {}
    for call, written, other in zip(recorder.calls, recorder.written, found, strict=True):
        kernel = call[:32].rstrip(b"\0").decode()
        worst.setdefault(kernel, []).append(difference(written, other))
    for kernel, differences in worst.items():
        largest = max(differences)
        print(f"{where}: {kernel}, {len(differences)} calls, largest difference {largest:.1e}")
        if largest > (0.0 if runner == () else AGREES[kernel]):
            sys.exit(f"{where}: results of {kernel} differ too much")


def main() -> None:
    missing = [tool for tool in (AARCH64[0], AARCH64[1][0]) if shutil.which(tool) is None]
    if missing:
        sys.exit(
            f"{', '.join(missing)} not found; on Debian: apt install gcc-aarch64-linux-gnu qemu-user"
        )
    recorder = record()
    compare(recorder, "this machine", *NATIVE)
    compare(recorder, "aarch64", *AARCH64)


if __name__ == "__main__":
    main()

"""The kernels in C: one source, compiled for several kinds of processor; the best is loaded.

They are plain shared libraries that Python opens by name (ctypes), so one wheel serves every Python on a
platform. Where they do not compile, the package installs all the same, and training goes through torch
alone. No flag ties a build to the machine that it was made on.
"""

import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("modelpred/targets/compiled")
FLAGS = ("-O3", "-g0", "-fno-math-errno")
X86 = {
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"),
    "avx2": ("-mavx2", "-mfma"),
}


def kinds() -> dict[str, tuple[str, ...]]:
    """The compiler's flags for each kind of processor that the platform may have."""
    x86 = sysconfig.get_platform().endswith(("x86_64", "amd64"))
    return {**(X86 if x86 else {}), "plain": ()}


class BuildKernels(build_ext):
    """Builds libraries that are named alike for every Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """The path of a kernel below the build folder."""
        return f"{fullname.replace('.', '/')}.so"


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """The tags in the wheel's name: Python, binary interface, platform."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            f"modelpred.targets.compiled.kernels_{kind}",
            sources=sorted(str(path) for path in FOLDER.glob("*.c")),
            depends=sorted(str(path) for path in FOLDER.glob("*.h")),
            extra_compile_args=[*FLAGS, *flags],
            libraries=["m"],
            optional=True,
        )
        for kind, flags in kinds().items()
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)

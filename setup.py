"""The kernels in C: one source, compiled for several kinds of processor; the best is loaded.

Where none compiles, the package installs all the same, and training goes through torch alone. No
flag ties a build to the machine that it was made on.
"""

from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("modelpred/targets/compiled")
KINDS = {
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"],
    "avx2": ["-mavx2", "-mfma"],
    "plain": [],
}

setup(
    ext_modules=[
        Extension(
            f"modelpred.targets.compiled.kernels_{kind}",
            sources=sorted(str(path) for path in FOLDER.glob("*.c")),
            depends=sorted(str(path) for path in FOLDER.glob("*.h")),
            extra_compile_args=["-O3", "-fno-math-errno", *flags],
            optional=True,
        )
        for kind, flags in KINDS.items()
    ]
)

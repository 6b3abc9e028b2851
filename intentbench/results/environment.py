"""Where a trial ran: versions, commit, device, threads. Needs no torch."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "intentbench",
    "torch",
    "lightning",
    "torchmetrics",
    "numpy",
    "scipy",
    "polars",
    "datasets",
    "scikit-learn",
)
"""Distributions whose versions can change a result."""

VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""The only environment variables that are recorded: others may hold keys."""

COMMIT = "COMMIT.json"
"""Beside the packages where they were copied out of a checkout: its "commit" and "dirty"."""


def describe_environment(device: str, threads: int) -> dict[str, Any]:
    """What a reader needs to know of the machine.

    Args:
        device: the accelerator's name as torch gives it, or "cpu".
        threads: torch's threads.

    Returns:
        Plain JSON types: python, platform, packages, commit, dirty, cpu, cores, device, threads,
        variables. `commit` is "" and `dirty` None where the package is no git checkout and does
        not say what it was copied from.
    """
    commit, dirty = _commit(Path(__file__).parents[2])
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": commit,
        "dirty": dirty,
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "device": device,
        "threads": threads,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(checkout: Path) -> tuple[str, bool | None]:
    """Commit of the checkout and whether tracked files differ from it.

    A folder that merely lies inside somebody else's repository (site-packages in a project's
    virtual environment) has no commit of its own.
    """
    if (stated := checkout / COMMIT).is_file():
        copied = json.loads(stated.read_text(encoding="utf-8"))
        return copied["commit"], copied["dirty"]
    if not (checkout / ".git").exists():
        return "", None
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        return commit, bool(_git(checkout, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", None


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(  # noqa: S603 (fixed program and arguments)
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())

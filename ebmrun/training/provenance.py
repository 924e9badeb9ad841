"""What a run was made with: ebmrun, the machine, and the user's own modules; one text a key."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from ebmrun import __version__
from ebmrun.errors import ConfigError, warn
from ebmrun.training.own_modules import digest, own_modules

FILE = Path(".hydra", "provenance.yaml")
PACKAGE = Path(__file__).resolve().parents[1]
OWN = "modules/"  # before the name of a module of the user's own
THEN = " then "  # between what a run began with and what it went on with


def provenance(config: Mapping[str, Any]) -> dict[str, str]:
    """Version and commit of ebmrun, the machine, and a hash of each of the user's own modules, ``modules/NAME``."""
    cuda = config.get("device") != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    facts = {"ebmrun": __version__, "commit": commit(), **machine(device)}
    return {key: str(value) for key, value in facts.items()} | _hashes(config)


def machine(device: torch.device) -> dict[str, str | int]:
    """The facts that timings depend on, and now and then the last digit of a result."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@cache  # what runs is what was loaded, whatever becomes of the checkout
def commit() -> str:
    """The commit of the checkout that ebmrun runs from, and ``+dirty`` where files differ from it; empty elsewhere."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(PACKAGE), *words], env=clean | {"GIT_OPTIONAL_LOCKS": "0"},
                              capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed copy may lie within another checkout
        return git("describe", "--always", "--abbrev=40", "--dirty=+dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def read(run_dir: Path) -> dict[str, str]:
    """The facts that a run has left; empty without any."""
    path = run_dir / FILE
    try:
        found = yaml.safe_load(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError):
        found = {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def require_same_modules(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Raises ConfigError, naming the file, where a module of the user's own is not that with which a run was made."""
    facts, now = read(run_dir), _hashes(config)
    before = {key: value for key, value in facts.items() if key.startswith(OWN)}
    for key in sorted(before.keys() | now.keys() if facts else ()):
        if before.get(key) != now.get(key):
            name = key.removeprefix(OWN)
            raise ConfigError(f"{own_modules(config).get(name, name)} has changed since the run in {run_dir}: put it "
                              "back as it was, or begin the run again with resume=false")


def continued(run_dir: Path, facts: Mapping[str, str]) -> dict[str, str]:
    """The facts of a run that goes on: those that it began with, then those that are new. Another version of ebmrun or
    torch, with which numbers may differ, gets a line of warning."""
    whole = dict(facts)
    for key, before in read(run_dir).items():
        last = before.split(THEN)[-1]
        if last == facts.get(key):
            whole[key] = before
        elif key in facts:
            whole[key] = f"{before}{THEN}{facts[key]}"
            if key in ("ebmrun", "torch"):
                warn(f"the run in {run_dir} began with {key} {last} and goes on with {facts[key]}: its numbers may "
                     "differ from those of either alone")
    return whole


def _hashes(config: Mapping[str, Any]) -> dict[str, str]:
    return {OWN + name: digest(path) for name, path in own_modules(config).items()}

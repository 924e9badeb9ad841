"""Several runs of one command: their folders, a bar that says how many have ended, and those that failed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from threading import Event, Thread
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from ebmrun.command.complaint import say
from ebmrun.files import replace

FAILED = "failed.json"  # what a failed run of several leaves in its folder, whichever process it ran in


def count(overrides: Sequence[str], loader: ConfigLoader | None = None) -> int:
    """The runs that the overrides of a command ask for: the product of the numbers of their choices. A ``loader`` knows
    how many ``glob(*)`` are."""
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    return prod(sum(1 for _ in each.sweep_string_iterator()) for each in parsed if each.is_sweep_override())


def ended(folder: Path, names: Sequence[str]) -> int:
    """The runs below a folder that have left one of the named files at their end."""
    return len({path.parent for name in names for path in folder.glob(f"*/{name}")})


class Progress(Thread):
    """A bar over the runs of a folder, whichever processes they are in; on a terminal only."""

    def __init__(self, total: int, folder: Path, names: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.total, self.folder, self.names = total, folder, names
        self._over = Event()

    def run(self) -> None:
        """Looks into the folder once a second."""
        before = min(ended(self.folder, self.names), self.total)
        with tqdm(total=self.total, initial=before, unit="run", disable=None, dynamic_ncols=True) as bar:
            over = False
            while not over:
                over = self._over.wait(1.0)
                bar.n = min(ended(self.folder, self.names), self.total)
                bar.refresh()

    def stop(self) -> None:
        """Ends the bar at the number of runs that have ended."""
        self._over.set()
        self.join()


class Sweep(Callback):
    """Hydra's callback that shows the bar while several runs go on, and ends them with their failures."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the processes of a parallel launcher get a copy, which need know nothing

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Before several runs, perhaps in a folder where earlier ones have failed."""
        folder = Path(config.hydra.sweep.dir)
        self.earlier = _failures(folder)
        total = count(config.hydra.overrides.task, GlobalHydra.instance().config_loader())
        self.progress = Progress(total, folder, ("summary.json", FAILED))
        self.progress.start()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """After several runs: exit with a status, and with the names of those that failed."""
        self.progress.stop()
        folder = Path(config.hydra.sweep.dir)
        failed = sorted(path for path, _ in _failures(folder) - self.earlier)
        if failed:
            names = ", ".join(path.parent.name for path in failed)
            say(f"failed in {config.hydra.sweep.dir}: {names}; {FAILED} in each says why")
            raise SystemExit(min(json.loads(path.read_text())["exit_status"] for path in failed))


def record_failure(run_dir: Path, status: int, message: str) -> None:
    """Leaves the exit status and the error of a run in its folder. Raises RunError where the disk refuses."""
    with replace(run_dir / FAILED) as file:
        file.write(json.dumps({"exit_status": status, "error": message}).encode() + b"\n")


def _failures(folder: Path) -> set[tuple[Path, int]]:
    return {(path, path.stat().st_mtime_ns) for path in folder.rglob(FAILED)}


def folder_name(number: int, overrides: str) -> str:
    """The folder of one run of several: its number, then its overrides as far as a file system takes them."""
    readable = re.sub(r"[^-+.,=\w]+", "_", overrides, flags=re.ASCII)
    return f"{number}-{readable[:150]}".rstrip("-")


# At import, so that the processes of a parallel launcher, which import this module too, can resolve it.
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)

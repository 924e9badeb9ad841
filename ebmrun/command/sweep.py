"""Several runs of one command: their folders, a bar that says how many have ended, and those that failed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from math import prod
from pathlib import Path
from threading import Event, Thread
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ebmrun.command.messages import say
from ebmrun.files import replace, writing
from ebmrun.training.folder import FAILED


def parsed(words: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """The overrides of a command. A ``loader`` knows how many ``glob(*)`` are."""
    return OverridesParser.create(loader).parse_overrides(list(words))


def distinct(overrides: Sequence[Override]) -> list[str]:
    """The overrides as words, no value of a sweep twice: what is asked for twice is one run."""
    words = []
    for each in overrides:
        if each.is_sweep_override() and each.is_discrete_sweep():
            values = list(each.sweep_string_iterator())
            if len(set(values)) < len(values):
                words.append(f"{each.get_key_element()}={','.join(dict.fromkeys(values))}")
                continue
        words.append(str(each.input_line))
    return words


def count(overrides: Sequence[Override]) -> int:
    """The runs that the overrides of a command ask for: the product of the numbers of their choices."""
    return prod(sum(1 for _ in each.sweep_string_iterator()) for each in overrides if each.is_sweep_override())


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
        from tqdm import tqdm  # which a command that only answers does not wait for

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
    """Hydra's callback that shows the bar while several runs go on, and ends them with their failures.

    ``command`` tells apart the commands that work in one folder at once; ``swept`` are the keys that differ between the
    runs of one."""

    def __init__(self, command: str, swept: Sequence[str]) -> None:
        self.command, self.swept = command, swept

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the processes of a parallel launcher get a copy, which need know nothing

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Before several runs, perhaps in a folder where earlier ones have failed."""
        folder, asked = Path(config.hydra.sweep.dir), config.hydra.overrides
        loader = GlobalHydra.instance().config_loader()
        asked.task = distinct(parsed(asked.task, loader))
        overrides = parsed(asked.task, loader)
        swept = {each.key_or_group for each in overrides if each.is_sweep_override()}
        naming = config.hydra.job.config.override_dirname
        unnamed = [key for key in naming.exclude_keys if key not in swept]  # else their runs would share a folder
        asked.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(unnamed)}]")
        asked.hydra.append(f"hydra.callbacks.sweep.swept=[{','.join(sorted(swept))}]")
        self.earlier = _failures(folder)
        self.progress = Progress(count(overrides), folder, ("summary.json", FAILED))
        self.progress.start()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """After several runs: exit with a status, and with the names of those that failed or were not free."""
        self.progress.stop()
        folder = Path(config.hydra.sweep.dir)
        failed = sorted(path for path, _ in _failures(folder) - self.earlier)
        held = _pop_held(folder, self.command)
        if failed:
            names = ", ".join(path.parent.name for path in failed)
            say(f"failed in {folder}: {names}; {FAILED} in each says why")
        if held:
            say(f"left to other processes in {folder}: {', '.join(held)}; the same command looks after them again")
        if failed or held:
            statuses = [json.loads(path.read_text())["exit_status"] for path in failed]
            raise SystemExit(min([*statuses, *(1 for _ in held)]))


def record_failure(run_dir: Path, status: int, message: str) -> None:
    """Leaves the exit status and the error of a run in its folder. Raises RunError where the disk refuses."""
    with replace(run_dir / FAILED) as file:
        file.write(json.dumps({"exit_status": status, "error": message}).encode() + b"\n")


def record_held(folder: Path, name: str, command: str) -> None:
    """Notes in the folder of several runs that a command had to leave one of them to another process. Raises RunError
    where the disk refuses."""
    with writing(folder), _held(folder, command).open("a") as file:
        file.write(f"{name}\n")


def _pop_held(folder: Path, command: str) -> list[str]:
    path = _held(folder, command)
    names = sorted(path.read_text().splitlines()) if path.is_file() else []
    path.unlink(missing_ok=True)
    return names


def _held(folder: Path, command: str) -> Path:
    return folder / f".held-{command}"


def _failures(folder: Path) -> set[tuple[Path, int]]:
    return {(path, path.stat().st_mtime_ns) for path in folder.rglob(FAILED)}


def folder_name(overrides: str) -> str:
    """The folder of one run of several: what it sets, as far as a file system and a reader take it. What is cut or
    altered is told apart by a hash of the whole."""
    readable = re.sub(r"^\.|[^-+.,=\w]+", "_", overrides, flags=re.ASCII)[:150]
    if readable == overrides:
        return readable or "defaults"
    return f"{readable}-{sha256(overrides.encode(errors='surrogatepass')).hexdigest()[:8]}"


# At import, so that the processes of a parallel launcher, which import this module too, can resolve it.
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)

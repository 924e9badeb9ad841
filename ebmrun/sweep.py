"""Several runs of one command: how many there are, and a bar that says how many have ended."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from threading import Event, Thread

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from tqdm import tqdm


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

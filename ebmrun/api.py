"""The command's work from Python, in the command's own words. ``import ebmrun`` offers all of it.

    trial = ebmrun.build("algo=pc", "nudge.strength=1e-2")
    x, y = trial.batch()
    trial.alignment(x, y)["alignment/angle"]

    run = ebmrun.train("algo=pc", "trainer.epochs=3", folder="outputs/first")
    run.metrics.plot("step", "train/loss")
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra import initialize_config_dir
from hydra.errors import HydraException
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from ebmrun import experiment
from ebmrun.command.cli import CONF, GROUPS, in_folder, made, note, remove_unused, require_names
from ebmrun.command.messages import complaint
from ebmrun.config import Config, typed
from ebmrun.data.sets import batches
from ebmrun.errors import ConfigError
from ebmrun.experiment import Parts
from ebmrun.theory.algorithm import Algorithm, Estimate
from ebmrun.theory.alignment import alignment
from ebmrun.theory.network import Network
from ebmrun.training import checkpoint
from ebmrun.training import folder as run_folder

if TYPE_CHECKING:
    import pandas as pd

Batch = Float[Tensor, "batch ..."]
Targets = Float[Tensor, "batch classes"]


@dataclass(frozen=True, eq=False)
class Trial(Parts):
    """A configuration and its parts: ``config``, ``device``, ``dataset``, ``network``, ``cost``, ``algorithm``."""

    composed: DictConfig

    def batch(self, number: int = 0, epoch: int = 0) -> tuple[Batch, Targets]:
        """Inputs (batch, *shape) and one-hot targets (batch, classes) that a training sees at a batch of an epoch.

        Raises:
            IndexError: the epoch has no batch of that number.
        """
        train, config = self.dataset.train, self.config
        index = batches(len(train), config.trainer.batch_size, config.seed, epoch)[number].to(train.inputs.device)
        return train.inputs[index], train.targets[index]

    def estimate(self, x: Batch, y: Targets) -> Estimate:
        """The algorithm's gradients of the mean cost of a batch, in the order of ``network.parameters()``, with how its
        relaxation went. Raises RunError where that diverges."""
        return self.algorithm.estimate(self.network, x, y)

    def references(self) -> dict[str, Algorithm]:
        """The algorithms of ``alignment.reference``, by the prefix of their measures. Raises ConfigError for one that
        does not fit the other parts."""
        with _one_line():
            return experiment.references(self, self.composed)

    def alignment(self, x: Batch, y: Targets) -> dict[str, float]:
        """How close the gradient of a batch is to that of each reference, in all and by layer, under the keys of
        metrics.csv: ``alignment/cosine``, ``alignment/angle/layer1``... Raises what ``estimate`` and ``references``
        do."""
        by_layer = self.network.by_layer
        found: dict[str, float] = {}
        gradients = by_layer(self.estimate(x, y).gradients)
        for prefix, reference in self.references().items():
            truth = by_layer(reference.estimate(self.network, x, y).gradients)
            found |= alignment(gradients, truth, prefix, self.network.names)
        return found


@dataclass(frozen=True, eq=False)
class Run:
    """What a training has left in its folder. Its weights are read, and its data set with them, when one of ``trial``
    and ``network`` is first asked for.

    ``config``: the configuration, with what ``load`` was told to change.
    ``metrics``: metrics.csv, a row a logged step; NaN where nothing was measured.
    ``summary``: summary.json, one value a key; empty for a run that has not ended.
    """

    folder: Path
    config: DictConfig
    metrics: pd.DataFrame
    summary: dict[str, Any]

    @cached_property
    def trial(self) -> Trial:
        """The parts, with the weights of the last checkpoint, on the device of ``config``. Raises ConfigError for a
        checkpoint that is absent, damaged or of another network."""
        saved = checkpoint.load(self.folder / "checkpoint.pt")
        trial = _trial(self.config)
        try:
            trial.network.load_state_dict(saved["network"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ConfigError(f"{self.folder / 'checkpoint.pt'} does not fit the network of its configuration "
                              f"({' '.join(str(error).split())}): load it without changes to it") from error
        return trial

    @property
    def network(self) -> Network:
        """The trained network."""
        return self.trial.network


def compose(*words: str) -> DictConfig:
    """The whole configuration that the command composes from these words, with ``conf/`` of the current folder.

    Raises:
        ConfigError: an unknown key or option, or a value out of range, in one line.
    """
    for word in words:
        if word.startswith(("-", "hydra.", "hydra/")):
            raise ConfigError(f"{word} is for the command alone: give GROUP=OPTION and KEY=VALUE, and the folder of a "
                              "run as folder=PATH")
    require_names(words)
    own = Path("conf").absolute()
    also = [f"hydra.searchpath=[file://{own}]"] if own.is_dir() and not own.samefile(CONF) else []
    with _one_line(), initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", [*words, *also])
        typed(cfg)
    return cfg


def build(*words: str) -> Trial:
    """The parts of a configuration, checked against each other; the network has the initial weights of its seed.

    Raises:
        ConfigError: as ``compose``, and for parts that do not fit or data that are not there.
    """
    return _trial(compose(*words))


def train(*words: str, folder: str | Path | None = None) -> Run:
    """Trains as the command does with these words, and reads back what the run left in its folder: ``folder``, that of
    ``resume=PATH``, or one of its own below ``outputs``. With ``study=`` it runs that study.

    Raises:
        ConfigError: as ``build``, and for a folder that holds another run; nothing is written then.
        RunError: the training diverged, or another process writes to the folder.
        KeyboardInterrupt: at Ctrl-C, after the batch at hand; the folder has a checkpoint to go on from.
    """
    cfg = compose(*words)
    asked = cfg.resume if isinstance(cfg.resume, str) else folder
    place = Path(asked) if asked is not None else _new_folder(cfg)
    made.clear()
    note(place)
    try:
        with _one_line():
            in_folder(cfg, place, list(words), several=False)
    except SystemExit as end:
        raise KeyboardInterrupt(f"stopped; train(..., 'resume={place}') goes on") from end
    finally:
        remove_unused()
    return load(place)


def load(folder: str | Path, *words: str) -> Run:
    """A run from its folder. Words such as ``device=cpu`` or ``dataset.root=PATH`` change single keys of its
    configuration; what a run of an earlier version did not have takes its default.

    Raises:
        ConfigError: a folder without a run, a configuration that cannot be read, or a word that does not fit it.
    """
    import pandas as pd  # which training does not wait for

    place = Path(folder)
    path = place / run_folder.CONFIG
    if not path.is_file():
        raise ConfigError(f"{place} holds no run, for it has no {run_folder.CONFIG}: name a folder that ebmrun has "
                          "written to")
    with _one_line():
        cfg = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path), OmegaConf.from_dotlist(list(words)))
        typed(cast(DictConfig, cfg))
    try:
        metrics = pd.read_csv(place / "metrics.csv")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {place / 'metrics.csv'} ({' '.join(str(error).split())}): put it back as the "
                          "run left it") from error
    return Run(place, cast(DictConfig, cfg), metrics, run_folder.summary(place))


def _trial(cfg: DictConfig) -> Trial:
    with _one_line():
        return Trial(**vars(experiment.build(cfg)), composed=cfg)


def _new_folder(cfg: DictConfig) -> Path:
    """As the command names it."""
    now = datetime.now()
    return Path("outputs", f"{now:%Y-%m-%d}", f"{now:%H-%M-%S-%f}-{cfg.algo.name}-{cfg.dataset.name}")


@contextmanager
def _one_line() -> Iterator[None]:
    """What Hydra and OmegaConf say over many lines, as a ConfigError of one."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(complaint(error, GROUPS)) from error

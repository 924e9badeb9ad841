"""The typed configuration: every key that the command line knows, with its type, its default and its range.

What is wrong with it is said before torch is loaded, which takes longer than all else here.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from ebmrun.data.config import DatasetConfig
from ebmrun.errors import ConfigError, no_such_key
from ebmrun.theory.noise import Noise
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.stencil import Nudge
from ebmrun.training.wandb_client import LoggerConfig

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float64")
PRECISIONS = (*DTYPES, "tf32", "bf16")  # the last two are float32 with products of fewer digits
UPDATES = ("at_equilibrium", "each_step")
REFERENCES = ("backprop", "implicit", "both")


@dataclass
class TrainerConfig:
    """Epochs, examples a batch, a cap on all steps (null: none), steps between two rows of metrics.csv, epochs without
    a better validation accuracy after which the training stops (null: it does not), the norm to which a larger gradient
    is shortened before its step (null: none is), whether torch.compile translates the gradient first (it needs a C++
    compiler, and minutes for the first batch), and whether the weights move once a batch, after its relaxation
    (``at_equilibrium``), or after every step of it, from which the states go on (``each_step``)."""

    epochs: int = 10
    batch_size: int = 64
    max_steps: int | None = None
    log_every: int = 10
    patience: int | None = None
    clip_norm: float | None = None
    compile: bool = False
    update: str = "at_equilibrium"

    def __post_init__(self) -> None:
        if self.update not in UPDATES:
            raise ConfigError(f"trainer.update={self.update} is unknown: choose one of {', '.join(UPDATES)}")
        if self.compile and self.update == "each_step":
            raise ConfigError(f"trainer.compile={self.compile} translates whole gradients, and trainer.update="
                              f"{self.update} has one a step: set trainer.compile=false")
        for key in ("epochs", "batch_size", "log_every", "max_steps", "patience"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"trainer.{key}={value} must be 1 or more")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ConfigError(f"trainer.clip_norm={self.clip_norm} must be a positive number, or null for no limit")
        compiler = os.environ.get("CXX", "g++")  # where torch looks
        if self.compile and not shutil.which(compiler):
            raise ConfigError(f"trainer.compile={self.compile} needs a C++ compiler, and {compiler} is none: "
                              "install one, name it in the variable CXX, or leave it out")


@dataclass
class AlignmentConfig:
    """Steps between two comparisons with the reference gradient (0: never), and which reference."""

    every: int = 10
    reference: str = "backprop"

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ConfigError(f"alignment.every={self.every} must be 0 (never) or more: 1 measures every batch")
        if self.reference not in REFERENCES:
            raise ConfigError(f"alignment.reference={self.reference} is unknown: choose one of {', '.join(REFERENCES)}")


@dataclass
class ProbeConfig:
    """Steps between two looks at the relaxation's regime (0: never), each as long as some tens of gradients."""

    every: int = 0

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ConfigError(f"probe.every={self.every} must be 0 (never) or more: 100 looks at every hundredth batch")


@dataclass
class Config:
    """The whole of it. What takes parts of a user's own (``Any``) is checked when the part is built."""

    algo: Any = MISSING
    arch: Any = MISSING
    energy: Any = MISSING
    cost: Any = MISSING
    augment: Any = MISSING
    optim: Any = MISSING
    schedule: Any = MISSING
    study: Any = MISSING
    feedback: Any = field(default_factory=lambda: {"_target_": "ebmrun.theory.feedback.Tied"})
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    nudge: Nudge = field(default_factory=Nudge)
    relax: Relaxation = field(default_factory=Relaxation)
    noise: Noise = field(default_factory=Noise)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    resume: Any = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed} must lie in 0..2^63-1")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision={self.precision} is unknown: choose one of {', '.join(PRECISIONS)}")
        if self.precision == "tf32" and self.trainer.compile:
            raise ConfigError("precision=tf32 is set for each gradient anew, which trainer.compile="
                              f"{self.trainer.compile} does not see: leave out one of them")
        if self.resume == "":
            raise ConfigError("resume= is empty: give the folder of a run, true or false")
        if not isinstance(self.resume, (bool, str, type(None))):
            raise ConfigError(f"resume={self.resume} must be true, false, or the folder of a run")

    @property
    def dtype(self) -> torch.dtype:
        """Of all numbers but those that a product rounds."""
        return dtype_of(self.precision if self.precision in DTYPES else "float32")

    def torch_device(self) -> torch.device:
        """Where to run: ``auto`` takes CUDA if there is one. Raises ConfigError for a device that is not there, or that
        has no TF32 where this is asked for."""
        import torch

        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device={self.device} is unknown: choose auto, cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device=cuda needs an NVIDIA GPU and a CUDA build of torch, and none was found: use "
                              "device=cpu")
        cuda = self.device != "cpu" and torch.cuda.is_available()
        if self.precision == "tf32" and not (cuda and torch.cuda.get_device_capability() >= (8, 0)):
            raise ConfigError("precision=tf32 needs an NVIDIA GPU of compute capability 8.0 or later, and none is "
                              "used: choose precision=float32, or bf16, which any device has")
        return torch.device("cuda" if cuda else "cpu")


def dtype_of(precision: str) -> torch.dtype:
    """The type of numbers of a precision."""
    import torch

    return cast("torch.dtype", getattr(torch, precision))


def require_whole_products(config: Config, study: str) -> None:
    """Raises ConfigError where a study would not round its products as the precision asks."""
    if config.precision not in DTYPES:
        raise ConfigError(f"precision={config.precision} is for training, study=search and study=certify: use "
                          f"{' or '.join(DTYPES)} with study={study}")


def require_no_updates(config: Config, study: str) -> None:
    """Raises ConfigError for what shows in updates of the weights alone, of which a study makes none."""
    for key, value, plain in (("noise.asymmetry", config.noise.asymmetry, 0.0),
                              ("trainer.update", config.trainer.update, "at_equilibrium")):
        if value != plain:
            raise ConfigError(f"{key}={value} shows as the weights are updated, and study={study} holds them: set "
                              f"{key}={plain}")


ConfigStore.instance().store(name="schema", node=Config)


def typed(cfg: DictConfig) -> Config:
    """The composed configuration as the dataclasses above, with every key and value checked. Raises ConfigError."""
    require_known(cfg, Config)
    return cast(Config, OmegaConf.to_object(cfg))


def forget_inherited(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Another optimizer by ``optim._target_`` keeps the learning rate, and of the keys of the option that it replaces
    only those that ``overrides`` of the command set: momentum means nothing to some, and something else to others."""
    named = {word.lstrip("+").partition("=")[0] for word in overrides}
    if "optim._target_" in named:
        cfg.optim = {key: value for key, value in cfg.optim.items()
                     if key in ("_target_", "lr") or any(f"{name}.".startswith(f"optim.{key}.") for name in named)}


def require_known(cfg: DictConfig, schema: type, above: str = "") -> None:
    """Raises ConfigError for a key, as an addition (``+key=value``) makes, that nothing would read. What lies below a
    part that takes a user's own (``Any``) is for that part to judge."""
    types = get_type_hints(schema)
    for key in map(str, cfg):
        if key not in types:
            raise ConfigError(no_such_key(above + key, types))
        if is_dataclass(types[key]) and isinstance(cfg[key], DictConfig):
            require_known(cfg[key], cast(type, types[key]), f"{above}{key}.")


def resolved(cfg: DictConfig | ListConfig) -> dict[str, Any]:
    """The composed configuration as plain values, every interpolation resolved, as a run leaves it behind."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))

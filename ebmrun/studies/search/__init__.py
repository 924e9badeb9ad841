"""``study=search``: the settings with the best result on validation examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from ebmrun.errors import ConfigError


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """``study=search``, where Optuna is installed. Raises ConfigError elsewhere."""
    try:
        from ebmrun.studies.search import study
    except ModuleNotFoundError as error:
        raise ConfigError(f"study=search needs {error.name}, which is not installed: pip install '.[search]' in the "
                          "folder of ebmrun") from error
    study.run(cfg, run_dir, overrides)

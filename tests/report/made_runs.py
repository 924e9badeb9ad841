"""Folders as runs leave them, with numbers that are known."""

import json
from pathlib import Path
from typing import Any

import yaml

TRAINING = "ebmrun.training.run.train"


def leave(folder: Path, algo: str, seed: int, accuracy: float, *overrides: str, error: float = 0.1,
          strength: float = 1e-4, study: str = TRAINING, **config: Any) -> Path:
    """What a run of two steps leaves behind."""
    (folder / ".hydra").mkdir(parents=True)
    words = [f"algo={algo}", f"seed={seed}", "logger=csv", *overrides]
    build = "ebmrun.experiment.backprop" if algo == "bp" else "ebmrun.experiment.energy_learning"
    composed = {"algo": {"name": algo, "build": build}, "seed": seed, "device": "auto", "resume": None,
                "logger": {"wandb": False}, "dataset": {"name": "digits", "root": "data"},
                "nudge": {"strength": strength}, "study": {"run": study}, "trainer": {"epochs": 4},
                "asked": list(overrides)} | config
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(composed))
    (folder / "metrics.csv").write_text(
        "step,train/loss,test/loss,test/accuracy,alignment/relative_error,alignment/relative_error/worst,"
        "alignment/relative_error/worst_layer,alignment/relative_error/layer1,alignment/relative_error/layer2\n"
        f"1,0.5,,,{error},{2 * error},1,{2 * error},{error / 2}\n2,0.4,0.3,{accuracy},,,,,\n")
    summary = {"algo": algo, "seed": seed, "steps": 2, "test/accuracy": accuracy, "train/loss": 0.4, "test/loss": 0.3,
               "alignment/relative_error": error, "alignment/relative_error/worst": 2 * error}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder

"""Small random data sets as a user's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 3
COUNTS = {"train": 60, "test": 30, "val": 15}


def arrays(shape: tuple[int, ...] = (6, 5, 3), parts: tuple[str, ...] = ("train", "test")) -> dict[str, np.ndarray]:
    """Random bytes in MedMNIST's layout, labels that go round the classes in a column; classes differ in brightness."""
    found = {}
    for seed, part in enumerate(parts):
        labels = np.arange(COUNTS[part]) % CLASSES
        noise = np.random.default_rng(seed).integers(0, 100, (COUNTS[part], *shape))
        found[f"{part}_images"] = (noise + 75 * labels.reshape(-1, *[1] * len(shape))).astype(np.uint8)
        found[f"{part}_labels"] = labels[:, None]
    return found


def write_npz(path: Path, **instead: np.ndarray) -> Path:
    """The arrays as an uncompressed file; ``instead`` replaces some of them, and None leaves one out."""
    np.savez(path, **{key: value for key, value in (arrays() | instead).items() if value is not None})
    return path


def write_folder(root: Path, found: dict[str, np.ndarray]) -> Path:
    """The same as a folder of PNG files for each class, in the order of their numbers within each."""
    for part in {key.partition("_")[0] for key in found}:
        for number, (pixels, label) in enumerate(zip(found[f"{part}_images"], found[f"{part}_labels"].flatten())):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return root

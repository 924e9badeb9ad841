"""Data sets as arrays with the names of MedMNIST's files: ``train_images``, ``train_labels``, ``test_images``, ...

They come from an .npz file, from a folder of .npy files, or from a function of the user's own.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from hydra.utils import get_method
from jaxtyping import Int64
from torch import Tensor

from ebmrun.data.config import DatasetConfig
from ebmrun.data.parts import Part, Parts
from ebmrun.data.stores import Memory, Rows, Store, channels_first
from ebmrun.errors import ConfigError

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
LAYOUT = "(N, height, width[, channels])"


class Place(NamedTuple):
    """An array that lies in a file as it lies in memory: from which byte on, and what it is."""

    file: Path
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]


def read(config: DatasetConfig) -> Parts:
    """The arrays at ``config.path``. Those that are not compressed may stay there. Raises ConfigError."""
    if not config.path:
        raise ConfigError("dataset=npz needs a file: give dataset.path=FILE.npz")
    path = Path(config.path).expanduser().absolute()
    try:
        if path.is_dir():
            names = {file.stem: file for file in path.glob("*.npy")}
            return _parts(str(path), names, lambda key: _array(path / f"{key}.npy"),
                          lambda key: _place(path / f"{key}.npy", 0), config)
        with zipfile.ZipFile(path) as archive:
            members = {Path(each.filename).stem: each for each in archive.infolist()}

            def place(key: str) -> Place | None:
                return _place(path, _start(path, members[key])) if not members[key].compress_type else None

            with np.load(path, allow_pickle=False) as arrays:
                return _parts(str(path), members, arrays.__getitem__, place, config)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = " ".join(str(error).split())
        raise ConfigError(f"dataset.path={path} cannot be read ({reason}): give an .npz file of numpy.savez, or a "
                          "folder of .npy files") from error


def call(config: DatasetConfig) -> Parts:
    """The arrays, or tensors, that a function of the user's own returns. Raises ConfigError."""
    name = config._target_ or ""
    try:
        function = get_method(name)
    except Exception as error:  # whatever a module does when it is imported, or a path that is none
        reason = error.__cause__ or error
        raise ConfigError(f"dataset._target_={name} names no function ({type(reason).__name__}: "
                          f"{' '.join(str(reason).split())}): write MODULE.FUNCTION") from error
    try:
        found = function(**config.arguments)
    except TypeError as error:
        raise ConfigError(f"dataset._target_={name} cannot be called with dataset.arguments={config.arguments} "
                          f"({error}): give what it asks for") from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"dataset._target_={name} returns a {type(found).__name__}: return a dictionary of "
                          f"{', '.join(KEYS)}")
    return _parts(f"dataset._target_={name}", found, lambda key: np.asarray(found[key]), lambda key: None, config)


def _parts(source: str, keys: Mapping[str, Any], array: Callable[[str], np.ndarray],
           place: Callable[[str], Place | None], config: DatasetConfig) -> Parts:
    names = ["train", "test", *(["val"] if "val_images" in keys else [])]
    for key in (f"{name}_{kind}" for name in names for kind in ("images", "labels")):
        if key not in keys:
            raise ConfigError(f"{source} lacks {key}: give it {', '.join(KEYS)}, and perhaps val_images and val_labels")
    labels = {name: _labels(source, f"{name}_labels", array(f"{name}_labels")) for name in names}
    stores = {name: _store(source, f"{name}_images", array, place) for name in names}
    classes = config.classes or int(labels["train"].max()) + 1
    for name in names:
        if len(stores[name]) != len(labels[name]):
            raise ConfigError(f"{source}: {name}_images and {name}_labels have different lengths "
                              f"({len(stores[name])} and {len(labels[name])}): give each image one label")
        outside = labels[name][(labels[name] < 0) | (labels[name] >= classes)]
        if len(outside):
            raise ConfigError(f"{source}: {name}_labels holds {outside[0]}, outside 0..{classes - 1}, the "
                              f"{classes} classes: number them from 0")
        if (stores[name].shape, stores[name].dtype) != (stores["train"].shape, stores["train"].dtype):
            raise ConfigError(f"{source}: {name}_images and train_images differ ({_described(stores[name])} and "
                              f"{_described(stores['train'])}): use one shape and one type")
    absent = (labels["train"].bincount(minlength=classes) == 0).nonzero().flatten()
    if len(absent):
        raise ConfigError(f"{source}: train_labels holds no {absent[0]}, and the largest of {classes} classes is "
                          f"{classes - 1}: number the classes from 0, each with examples")
    peak = 255.0 if stores["train"].dtype == torch.uint8 else None
    parts = {name: Part(stores[name], labels[name]) for name in names}
    return Parts(config._target_ or "npz", peak, classes, **parts)


def _labels(source: str, key: str, found: np.ndarray) -> Int64[Tensor, " examples"]:
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
        raise ConfigError(f"{source}: {key} is {found.dtype} of shape {found.shape}: give one integer for each image")
    return torch.from_numpy(found.astype(np.int64))


def _store(source: str, key: str, array: Callable[[str], np.ndarray],
           place: Callable[[str], Place | None]) -> Store:
    """The images: where they lie in the file, if they may stay there, otherwise in memory."""
    found = place(key)
    shape, dtype = (found.shape, found.dtype) if found else ((whole := array(key)).shape, whole.dtype)
    if dtype != np.uint8 and (dtype.kind != "f" or dtype.itemsize > 8) or len(shape) < 2 or 0 in shape:
        raise ConfigError(f"{source}: {key} is {dtype} of shape {shape}: give uint8 or float of shape {LAYOUT}")
    if found:
        return Rows(found.file, found.start, dtype, shape[1:], torch.arange(shape[0]))
    native = np.ascontiguousarray(whole, whole.dtype.newbyteorder("="))
    return Memory(channels_first(torch.from_numpy(native if native.flags.writeable else native.copy())))


def _described(store: Store) -> str:
    return f"{str(store.dtype).removeprefix('torch.')} of shape {store.shape}"


def _array(file: Path) -> np.ndarray:
    return np.load(file, allow_pickle=False)


def _place(path: Path, start: int) -> Place | None:
    """Where the array of an .npy file begins that starts at a byte of ``path``; None where it is no plain one."""
    with path.open("rb") as file:
        file.seek(start)
        shape, fortran, dtype = _header(file)
        ends = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if ends > path.stat().st_size:
            raise ValueError(f"it ends within an array of shape {shape}")
        return None if fortran or dtype.hasobject else Place(path, file.tell(), dtype, shape)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return reader(file)


def _start(path: Path, member: zipfile.ZipInfo) -> int:
    """The first byte of a member that is stored as it is: after its local header, whose last two fields are the lengths
    of a name and of extra bytes (PKWARE, APPNOTE.TXT, section 4.3.7)."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2").tolist()
        return member.header_offset + 30 + name + extra

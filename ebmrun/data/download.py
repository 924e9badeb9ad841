"""torchvision's data sets: its module under any build of torch, the files it reads, and their download."""

from __future__ import annotations

import os
import queue
import shlex
import socket
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch

from ebmrun.errors import ConfigError

PATIENCE = 10.0  # seconds for a server to answer before the network counts as absent
STALL = 60.0  # seconds without a byte after which a download has failed
SOURCES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10",
           "cifar100": "CIFAR100", "svhn": "SVHN"}


def fetch(name: str, root: str | Path) -> None:
    """Have torchvision download the files of ``name`` that ``root`` lacks; each appears once it is whole.

    Raises:
        ConfigError: the files cannot be fetched or stored.
    """
    root, source = folder_of(root), getattr(torchvision_datasets(), SOURCES[name])
    if root.exists() and not root.is_dir():
        raise ConfigError(f"dataset.root={root} is no folder: point it, or the variable EBMRUN_DATA, at one")
    missing = [file for file in files_of(source) if not (root / file).is_file()]
    if not missing:
        return
    timeout = socket.getdefaulttimeout()
    try:
        if not _answers(_addresses(source)):
            raise OSError("no server answers")
        socket.setdefaulttimeout(STALL)  # torchvision sets none
        nearest = next(folder for folder in (root, *root.parents) if folder.is_dir())
        with TemporaryDirectory(prefix=".download-", dir=nearest) as folder:
            for part in _parts(source):
                source(folder, download=True, **part)
            for file in missing:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(folder, file), root / file)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        program = shlex.quote(f'from ebmrun.data.download import fetch; fetch("{name}", "{root}")')
        raise ConfigError(
            f"dataset.root={root} lacks {missing[0]}, and fetching it failed ({reason}): "
            f"point dataset.root, or the variable EBMRUN_DATA, at a folder that holds {name}, "
            f"or fetch it where there is a network: python -c {program}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def folder_of(root: str | Path) -> Path:
    """A data root as an absolute path."""
    return Path(root).expanduser().absolute()


def files_of(source: Any) -> dict[str, str | None]:
    """The files below a root that torchvision's ``source`` reads, with their MD5 sums where it knows them."""
    if hasattr(source, "resources"):
        return {f"{source.__name__}/raw/{Path(archive).stem}": None for archive, _ in source.resources}
    if hasattr(source, "split_list"):
        return {file: checksum for _, file, checksum in (source.split_list[part["split"]] for part in _parts(source))}
    listed = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    return {f"{source.base_folder}/{file}": checksum for file, checksum in listed}


def torchvision_datasets() -> Any:
    """torchvision's data sets, also where its compiled operators do not fit this torch and cannot load."""
    try:
        from torchvision import datasets
    except RuntimeError:  # it describes two of those operators at import, and data sets use neither
        for operator in ("torchvision::nms", "torchvision::qnms"):
            torch.library.define(operator, "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision import datasets
    return datasets


def _parts(source: Any) -> list[dict[str, str]]:
    """The arguments with which torchvision fetches every file of a set: SVHN's come part by part."""
    return [{"split": "train"}, {"split": "test"}] if hasattr(source, "split_list") else [{}]


def _addresses(source: Any) -> Sequence[str]:
    if hasattr(source, "split_list"):
        return [source.split_list["train"][0]]
    return getattr(source, "mirrors", None) or [source.url]


def _answers(addresses: Sequence[str]) -> bool:
    """Whether any server answers, be it with an error. Threads, since looking up a name knows no timeout."""
    replies: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask(address: str) -> None:
        try:
            urlopen(Request(address, method="HEAD"), timeout=PATIENCE).close()
            replies.put(True)
        except (OSError, HTTPException) as error:
            replies.put(isinstance(error, HTTPError))

    for address in addresses:
        Thread(target=ask, args=(address,), daemon=True).start()
    try:
        return any(replies.get(timeout=PATIENCE) for _ in addresses)
    except queue.Empty:
        return False

"""Every way in which a data set's files can be missing, and what each download leaves behind."""

import gzip
import re
import shlex
import socket
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from image_files import HEADERS, IDX, closed_address, complaint, md5, read, write_cifar, write_idx

from ebmrun.data import download
from ebmrun.data.download import SOURCES, fetch, torchvision_datasets
from ebmrun.errors import ConfigError


class Store(SimpleHTTPRequestHandler):
    """Serves files and refuses to list a folder, as object stores do."""

    def do_HEAD(self) -> None:
        if self.path.endswith("/"):
            self.send_error(403)
        else:
            super().do_HEAD()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server on the loopback, of the folder tmp_path/served."""
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Store, directory=str(tmp_path / "served"))) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def publish_mnist(address: str, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(served / "plain")
    resources = []
    for file in HEADERS:
        archive = served / f"{file}.gz"
        archive.write_bytes(gzip.compress((served / "plain" / file).read_bytes()))
        resources.append((archive.name, md5(archive)))
    monkeypatch.setattr(torchvision_datasets().MNIST, "resources", resources)
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [address])


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_absent_files_are_fetched_once(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_mnist(address, tmp_path / "served", monkeypatch)
    root = tmp_path / "new" / "root"
    fetched = read("mnist", root)
    expected = {"MNIST", "MNIST/raw", *(f"MNIST/raw/{file}" for file in HEADERS)}
    assert tree(tmp_path / "new") == {"root", *(f"root/{path}" for path in expected)}
    for file in HEADERS:
        assert (root / "MNIST/raw" / file).read_bytes() == (tmp_path / "served/plain" / file).read_bytes()
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [closed_address()])
    assert torch.equal(read("mnist", root).train.inputs, fetched.train.inputs)


def test_only_missing_files_are_fetched(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_mnist(address, tmp_path / "served", monkeypatch)
    folder = tmp_path / "root" / "MNIST" / "raw"
    write_idx(folder, train=12)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    dataset = read("mnist", tmp_path / "root")
    assert (len(dataset.train), len(dataset.test)) == (12, 20)


def test_cifar10_is_fetched_whole(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path / "made", monkeypatch)
    archive = tmp_path / "served" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(torchvision_datasets().CIFAR10, "url", address + archive.name)
    monkeypatch.setattr(torchvision_datasets().CIFAR10, "tgz_md5", md5(archive))
    assert len(read("cifar10", tmp_path / "root").train) == 20
    assert tree(tmp_path / "root") == tree(tmp_path / "made")


@pytest.mark.parametrize("fault", ["missing", "cut", "altered"])
def test_a_download_that_fails_leaves_nothing(
    fault: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_mnist(address, tmp_path / "served", monkeypatch)
    last = tmp_path / "served" / "t10k-labels-idx1-ubyte.gz"
    whole = last.read_bytes()
    last.write_bytes({"missing": b"", "cut": whole[:-5], "altered": whole[:-1] + b"!"}[fault])
    if fault == "missing":
        last.unlink()
    (tmp_path / "root").mkdir()
    for root in (tmp_path / "root", tmp_path / "new" / "root"):
        assert f"dataset.root={root} lacks" in complaint("mnist", root)
    assert tree(tmp_path / "root") == set() and not (tmp_path / "new").exists()
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", [*IDX, "cifar10"])
def test_no_data_and_no_network_is_clear(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    source = getattr(torchvision_datasets(), SOURCES[name])
    if name == "cifar10":
        monkeypatch.setattr(source, "url", closed_address())
    else:
        monkeypatch.setattr(source, "mirrors", [closed_address(), closed_address()])
    message = complaint(name, tmp_path / "absent")
    assert all(
        part in message for part in (str(tmp_path / "absent"), "EBMRUN_DATA", "dataset.root", "python -c ")
    )
    assert tree(tmp_path) == set()


def test_the_command_of_the_message_fetches(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_mnist(address, tmp_path / "served", monkeypatch)
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [closed_address()])
    message = complaint("mnist", tmp_path / "a root")
    program = shlex.split(message[message.index("python -c ") :])[2]
    arguments = re.fullmatch(r'from ebmrun.data.download import fetch; fetch\("(.*)", "(.*)"\)', program).groups()
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [address])
    fetch(*arguments)
    assert len(read("mnist", tmp_path / "a root").train) == 30


def test_a_server_that_never_answers_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mirror = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [mirror, mirror])
        with pytest.raises(ConfigError, match="no server answers"):
            fetch("mnist", tmp_path)
    assert tree(tmp_path) == set()

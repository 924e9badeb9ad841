"""What is installed: wheel and source distribution hold the package with its files, the pins hold the ranges."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import ebmrun

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("ebmrun", "conf", "docs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in",
           "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt")
HELD = (".py", ".yaml", ".html", ".css", ".js", ".typed")  # of the package, by how their names end


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is distributed: a build leaves its own folders beside the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sources."""
    return built(sources, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the wheel."""
    return environment_with(wheel, tmp_path_factory.mktemp("environment"))


def built(sources: Path, folder: Path) -> Path:
    """The wheel of a folder of sources or of a source distribution."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(sources))
    (path,) = folder.glob("*.whl")
    return path


def environment_with(distribution: Path, home: Path) -> Path:
    """The folder of commands of a new environment with a distribution, which borrows the dependencies of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    commands = Path(sysconfig.get_path("scripts", "venv", {"base": str(home)}))
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    pip("--python", str(commands / "python"), "install", "--no-deps", str(distribution))
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return commands


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def call(folder: Path, *command: object) -> str:
    """Output of a command that succeeds, called from a folder without this checkout on any path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def held(wheel: Path) -> set[str]:
    """The files of the package in a wheel."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(HELD)}


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ebmrun").rglob("*") if path.suffix in HELD
           or path.name == "py.typed"}
    configurations = {
        f"ebmrun/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert held(wheel) == own | configurations | {"ebmrun/conf/__init__.py"}


def test_the_version_is_that_of_the_last_change(wheel: Path) -> None:
    (newest, *_) = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == ebmrun.__version__ and wheel.name.startswith(f"ebmrun-{newest}-")


TYPED = """
import ebmrun

class Mine(ebmrun.ByValue):
    feedforward = True

trial = ebmrun.build("algo=pc")
reveal_type(trial.alignment(*trial.batch()))
reveal_type(ebmrun.load("run").network)
ebmrun.build(3)
"""


@pytest.mark.slow
def test_a_source_distribution_makes_the_same_wheel_and_runs(sources: Path, wheel: Path, tmp_path: Path) -> None:
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=sources, check=True, stdout=subprocess.DEVNULL)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt", "pyproject.toml"} <= names
    own = built(archive, tmp_path)
    assert held(own) == held(wheel)
    commands, place = environment_with(own, tmp_path / "environment"), tmp_path / "place"
    place.mkdir()
    call(place, commands / "ebmrun", "trainer.max_steps=3", "logger=csv", "hydra.run.dir=run")
    call(place, commands / "ebmrun-report", "run")
    assert "<h2>Summary</h2>" in (place / "run/report/report.html").read_text()
    (place / "typed.py").write_text(TYPED)
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--python-executable", commands / "python",
                           "--cache-dir", tmp_path / "cache", "typed.py"], cwd=place, capture_output=True, text=True,
                          check=False, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    notes = re.findall(r'Revealed type is "(.*)"', done.stdout.replace("builtins.", ""))
    assert notes == ["dict[str, float]", "ebmrun.theory.network.Network"], done.stdout
    assert re.findall(r":(\d+): error: .*", done.stdout) == ["10"], done.stdout  # the 3 is no word


def test_installed_command_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    origin = call(
        tmp_path, installed / "python", "-c", "import ebmrun.command.cli as c; print(c.__file__); print(c.CONF)"
    )
    assert all(Path(line).is_relative_to(installed.parent) for line in origin.split())
    shown = call(tmp_path, installed / "ebmrun", "--help")
    assert all(
        f"\n{group.name}: " in shown for group in (ROOT / "conf").glob("[a-z]*/") if group.name != "hydra"
    )
    composed = yaml.safe_load(call(tmp_path, installed / "ebmrun", "seed=7", "--cfg", "job"))
    assert composed["seed"] == 7 and composed["dataset"]["name"] == "digits"
    assert not list(tmp_path.iterdir())
    call(tmp_path, installed / "ebmrun", "trainer.max_steps=3", "logger=csv")
    (run_dir,) = tmp_path.glob("outputs/*/*")
    left = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    assert {".hydra/config.yaml", "metrics.csv", "summary.json", "checkpoint.pt"} <= left
    said = call(tmp_path, installed / "ebmrun-report", "outputs")
    assert said.startswith("1 finished runs") and "| pc | 1 | " in (tmp_path / "outputs/report/report.md").read_text()


def requirements() -> list[Requirement]:
    """All that setup.cfg asks for, its extras too, but for the package itself."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    named = [Requirement(line) for line in "\n".join(lines).splitlines() if line]
    return [requirement for requirement in named if requirement.name != "ebmrun"]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.13"])
def test_each_requirement_has_one_pin_within_its_range(python: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    valid = [pin for pin in pins if not pin.marker or pin.marker.evaluate({"python_version": python})]
    versions = {pin.name: str(pin.specifier) for pin in valid}
    assert len(versions) == len(valid) and all(
        re.fullmatch(r"==[^=<>*,]+", each) for each in versions.values()
    )
    for requirement in requirements():
        assert requirement.specifier.contains(versions[requirement.name][2:]), requirement


def test_make_without_a_target_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    listed = [line.split()[1] for line in call(ROOT, "make", "--no-print-directory").splitlines()]
    assert sorted(listed) == sorted(phony[1].split())


@pytest.mark.parametrize("target", ["test-data", "test-all"])
def test_a_target_that_needs_mnist_says_in_one_line_where_it_looked(tmp_path: Path, target: str) -> None:
    done = subprocess.run(["make", "--no-print-directory", target], cwd=ROOT, capture_output=True, text=True,
                          check=False, env=os.environ | {"EBMRUN_DATA": str(tmp_path)})
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout
    assert f"no MNIST in {tmp_path}: set EBMRUN_DATA" in line

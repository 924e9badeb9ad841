"""The configuration: every shipped choice composes and is typed, and each bad value is refused by name with a mend."""

import re
from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from program import composed

from ebmrun.command import cli
from ebmrun.command.messages import complaint
from ebmrun.config import AlignmentConfig, Config, TrainerConfig, require_whole_products, typed
from ebmrun.errors import ConfigError
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.stencil import Nudge

CONF = Path(__file__).resolve().parents[1] / "conf"
PRESETS = sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))


def test_defaults():
    config = typed(composed())
    assert isinstance(config, Config) and isinstance(config.nudge, Nudge) and isinstance(config.relax, Relaxation)
    assert (config.seed, config.precision, config.dtype) == (0, "float32", torch.float32)
    assert config.trainer == TrainerConfig() and config.alignment == AlignmentConfig()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_composes_into_values_in_range(preset):
    cfg = composed(f"algo={preset}")
    assert cfg.algo.name == preset
    typed(cfg)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_never_stops_an_override(preset):
    config = typed(composed(f"algo={preset}", "nudge=centered", "nudge.strength=0.03", "relax=gradient_flow",
                            "relax.step_size=0.2", "energy=lifted", "energy.feedback_gain=0.5"))
    assert (config.nudge.nodes, config.nudge.strength) == ([1.0, -1.0], 0.03)
    assert (config.relax.order, config.relax.step_size) == ("synchronous", 0.2)
    assert (config.energy["_target_"], config.energy["feedback_gain"]) == ("ebmrun.theory.energies.Lifted", 0.5)


@pytest.mark.parametrize("path", sorted(CONF.glob("[!h]*/*.yaml")), ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_shipped_option_composes(path):
    composed(f"{path.parent.name}={path.stem}")


@pytest.mark.parametrize("path", sorted((CONF / "algo").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_is_short_and_names_its_source(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 14 and lines[0] == "# @package _global_" and lines[1].startswith("# ")


@pytest.mark.parametrize(("override", "message"), [
    ("seed=-1", "seed=-1 must lie in 0..2^63-1"),
    ("seed=9223372036854775808", "seed=9223372036854775808 must lie in 0..2^63-1"),
    ("precision=float16", "precision=float16 is unknown: choose one of float32, float64, tf32, bf16"),
    ("resume=3", "resume=3 must be true, false, or the folder of a run"),
    ("trainer.epochs=0", "trainer.epochs=0 must be 1 or more"),
    ("trainer.batch_size=0", "trainer.batch_size=0 must be 1 or more"),
    ("trainer.max_steps=0", "trainer.max_steps=0 must be 1 or more"),
    ("trainer.log_every=-5", "trainer.log_every=-5 must be 1 or more"),
    ("dataset.range=[false,true]", "dataset.range=[False, True] must be two numbers"),
    ("alignment.every=-1", "alignment.every=-1 must be 0 (never) or more"),
    ("probe.every=-1", "probe.every=-1 must be 0 (never) or more"),
    ("alignment.reference=true_gradient", "alignment.reference=true_gradient is unknown: choose one of backprop"),
    ("nudge.strength=0", "nudge.strength=0.0 must be a positive number"),
    ("nudge.strength=-0.1", "nudge.strength=-0.1 must be a positive number"),
    ("nudge.strength=nan", "nudge.strength=nan must be a positive number"),
    ("nudge.nodes=[1.0,2.0]", "must be as many"),
    ("nudge.weights=[2.0]", "estimate 2 times the derivative: scale the weights"),
    ("relax.order=random", "relax.order=random is unknown: choose one of sweep, even_odd, synchronous"),
    ("relax.coordinates=polar", "relax.coordinates=polar is unknown: choose one of error, state"),
    ("relax.acceleration=newton", "newton is unknown: choose one of none, auto, adaptive, conjugate, anderson"),
    ("relax.step_size=0", "relax.step_size=0.0 must lie in (0, 2]"),
    ("relax.step_size=2.1", "relax.step_size=2.1 must lie in (0, 2]"),
    ("relax.step_size=nan", "relax.step_size=nan must lie in (0, 2]"),
    ("relax.tol=-1e-3", "relax.tol=-0.001 must be 0 or a positive number: try 1e-3"),
    ("relax.tol=inf", "relax.tol=inf must be 0 or a positive number"),
    ("relax.max_steps=0", "relax.max_steps=0 must be 1 or more"),
    ("relax.free_steps=0", "relax.free_steps=0 must be 1 or more"),
    ("relax.check_every=0", "relax.check_every=0 must be 1 or more"),
])
def test_values_out_of_range_are_refused(override, message):
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(ConfigError, match=pattern) as refusal:
        typed(composed(override))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("override", ["seed=first", "trainer.epochs=1.5", "relax.step_size=fast", "nudge.nodes=[a]",
                                      "relax.max_steps=null", "trainer.batch_size=true"])
def test_the_schema_refuses_wrong_types_by_name(override):
    key, value = override.split("=")
    with pytest.raises((HydraException, OmegaConfBaseException)) as refusal:
        typed(composed(override))
    said = complaint(refusal.value, cli.GROUPS)
    assert key in said and value.strip("[]") in said and "\n" not in said


def test_devices():
    assert Config(device="cpu").torch_device() == torch.device("cpu")
    assert Config(device="auto").torch_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="device=tpu is unknown: choose auto, cpu or cuda"):
        Config(device="tpu").torch_device()


def test_cuda_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device=cuda needs an NVIDIA GPU.*use device=cpu"):
        Config(device="cuda").torch_device()


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_tf32_that_is_not_there_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="precision=tf32 needs an NVIDIA GPU.*choose precision=float32, or bf16"):
        Config(precision="tf32", device=device).torch_device()


def test_tf32_is_not_compiled():
    with pytest.raises(ConfigError, match="precision=tf32 .*trainer.compile=True.*leave out one"):
        Config(precision="tf32", trainer=TrainerConfig(compile=True))


@pytest.mark.parametrize("precision, dtype", [
    ("float32", torch.float32), ("float64", torch.float64), ("tf32", torch.float32), ("bf16", torch.float32)])
def test_numbers_are_those_of_the_precision_and_float32_where_products_alone_are_rounded(precision, dtype):
    assert typed(composed(f"precision={precision}")).dtype == dtype


@pytest.mark.parametrize("precision", ["float32", "float64", "tf32", "bf16"])
def test_studies_that_round_nothing_refuse_a_precision_that_asks_for_it(precision):
    config = Config(precision=precision)
    if precision.startswith("float"):
        require_whole_products(config, "paper")
    else:
        with pytest.raises(ConfigError, match=f"precision={precision}.*float32 or float64 with study=paper"):
            require_whole_products(config, "paper")

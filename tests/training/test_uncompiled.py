"""The stand-in changes no step of an optimizer, and makes way for the compiler whichever way that is asked for."""

import subprocess
import sys

import pytest
from program import environment

STEPS = """
import sys, torch
from ebmrun.training.uncompiled import StandIn, without_compiler

def steps(kind):
    weight = torch.nn.Parameter(torch.arange(4.0))
    optimizer = kind([weight], lr=0.1)
    for _ in range(3):
        weight.grad = weight.detach() ** 2 - 1
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    return weight.detach()

kinds = torch.optim.SGD, torch.optim.Adam
without_compiler()
found = [steps(kind) for kind in kinds]
assert isinstance(sys.modules["torch._dynamo"], StandIn) and "sympy" not in sys.modules
{ask}
assert not isinstance(sys.modules["torch._dynamo"], StandIn) and torch._dynamo is sys.modules["torch._dynamo"]
assert torch._dynamo.utils is sys.modules["torch._dynamo.utils"] and torch._dynamo.utils.__spec__.origin
without_compiler()
assert not isinstance(torch._dynamo, StandIn)  # what is loaded stays
from torch._dynamo.testing import CompileCounter
seen = CompileCounter()
assert torch.compile(lambda x: x + 1, backend=seen)(torch.ones(2)).tolist() == [2, 2] and seen.frame_count == 1
assert all(torch.equal(a, steps(kind)) for a, kind in zip(found, kinds))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ask", [
    "import torch._dynamo.utils",
    "from torch._dynamo import config",
    "torch._dynamo.reset()",
    "from torch._dynamo.backends.registry import list_backends",
    "torch.compile(lambda x: x * 2, backend='eager')(torch.ones(2))",
])
def test_the_compiler_comes_when_it_is_asked_for(ask: str) -> None:
    subprocess.run([sys.executable, "-c", STEPS.replace("{ask}", ask)], env=environment(), check=True)

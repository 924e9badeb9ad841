"""Coordinates name one state in several ways: every pair of them must tell the same story."""

from __future__ import annotations

import pytest
import torch
from networks import NETWORKS, batch, drive, member, random_diamond, random_mlp, stencil

from ebmrun.theory.coordinates import State
from ebmrun.theory.displacement import Displacement
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.error import Error, RelativeError


def spaces(energy, kind, network, x, nodes: int = 1):
    """Two spaces, in states and in the kind's own variables, around one free equilibrium."""
    free, _ = member(energy, stencil("centered"), network).free_equilibrium(network, x)
    return State(network, energy, free.repeat(nodes)), kind(network, energy, free.repeat(nodes))


KINDS = [(Predictive, Error), (Lifted, Error), (Predictive, RelativeError), (Lifted, RelativeError),
         (Hopfield, Displacement)]


@pytest.mark.parametrize("energy, kind", KINDS)
@pytest.mark.parametrize("net", NETWORKS)
def test_they_start_at_the_free_equilibrium(net, energy, kind):
    network = NETWORKS[net]()
    x, _ = batch(network)
    with torch.no_grad():
        plain, space = spaces(energy(0.5), kind, network, x)
        u, drives, signals = space.start()
        states, _, below = plain.start()
        for l, (value, heard) in enumerate(zip(u, drives)):
            assert float(value.abs().max()) == 0
            torch.testing.assert_close(space.state(value, heard), states[l], rtol=0, atol=1e-11)
            counted = signals[l] + below[l] if space.relative and l else signals[l]
            torch.testing.assert_close(counted, below[l], rtol=0, atol=1e-11)


@pytest.mark.parametrize("energy, kind", KINDS)
@pytest.mark.parametrize("net", NETWORKS)
def test_states_drives_answers_and_messages_agree_away_from_the_equilibrium(net, energy, kind):
    """At states x + dx, drawn at random so that winners of max pooling change: drives, answers and messages of the
    kind are those of the states, where Displacement counts them from their values at the free equilibrium."""
    network, energy = NETWORKS[net](), energy(0.5)
    x, _ = batch(network)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        plain, space = spaces(energy, kind, network, x)
        free, (states, _, _) = space.free, plain.start()
        shifts = [0.1 * torch.randn(s.shape, generator=draw, dtype=s.dtype) for s in states]
        messages = [0.1 * torch.randn(s.shape, generator=draw, dtype=s.dtype) for s in states]
        moved = [s + d for s, d in zip(states, shifts)]
        signals, whole, switches = [x], [x, *moved], 0
        for l, state in enumerate(moved):
            heard, a = space.drive(l, signals) if l else space.start()[1][0], plain.drive(l, whole)
            value = space.from_state(state, heard)
            torch.testing.assert_close(space.state(value, heard), state, rtol=0, atol=1e-11)
            relative = kind is Displacement
            answer = space.state(space.respond(l, heard, messages[l]), heard)
            base = free.messages[l] if relative else 0
            torch.testing.assert_close(answer, plain.respond(l, a, base + messages[l]), rtol=0, atol=1e-11)
            sent = space.feedback(l, value, heard)
            right = plain.feedback(l, state, a)
            torch.testing.assert_close(sent + free.feedback[l] if relative else sent, right, rtol=0, atol=1e-11)
            for edge, (source, affine) in enumerate(network.edges[l]):
                if source:
                    down = space.down(l, edge, sent, heard)
                    before = free.drives[l].pieces[edge]
                    at_rest = affine.adjoint(free.feedback[l], before) if relative else 0
                    torch.testing.assert_close(at_rest + down, plain.down(l, edge, right, a), rtol=0, atol=1e-11)
                    switches += 0 if before is None else int((before.places != heard.pieces[edge].places).sum())
            signals.append(space.signal(value, heard))
            said = signals[-1] + states[l] if space.relative else signals[-1]
            torch.testing.assert_close(said, state, rtol=0, atol=1e-11)
    assert net != "diamond" or switches > 0


@pytest.mark.parametrize("net", NETWORKS)
def test_a_settled_equilibrium_carries_the_messages_that_hold_it(net):
    """x = respond(a, t), and t = sum gamma^(h_k - h_l) J^T m with m = feedback(x, a); the output receives none. J^T m
    by autograd of <m, a>."""
    network, gain = NETWORKS[net](), 0.7
    x, _ = batch(network)
    learning = member(Hopfield(gain), stencil("centered"), network)
    with torch.no_grad():
        free, phase = learning.free_equilibrium(network, x)
    assert phase.converged and float(free.messages[-1].abs().max()) == 0
    states = [state.clone().requires_grad_() for state in free.states]
    for l, (edges, f) in enumerate(zip(network.edges, network.activations)):
        a = drive(edges, x, states)
        torch.testing.assert_close(a, free.drives[l].a, rtol=0, atol=1e-10)
        torch.testing.assert_close(f(a + free.messages[l]), states[l], rtol=0, atol=1e-10)
    sent = sum(gain ** -height * (m * drive(edges, x, states)).sum()
               for height, edges, m in zip(network.heights, network.edges, free.feedback))
    for height, heard, slope in zip(network.heights[:-1], free.messages, torch.autograd.grad(sent, states[:-1])):
        torch.testing.assert_close(gain**height * slope, heard, rtol=0, atol=1e-10)


def test_several_nodes_are_copies_that_share_their_inputs():
    network = random_diamond()
    x, _ = batch(network, 4)
    free, _ = member(Hopfield(), stencil("centered"), network).free_equilibrium(network, x)
    three = free.repeat(3)
    assert three.inputs is free.inputs
    for name in ("states", "messages", "feedback"):
        for copies, one in zip(getattr(three, name), getattr(free, name)):
            assert all(torch.equal(part, one) for part in copies.split(4))
    for copies, one in zip(three.drives, free.drives):
        assert all(torch.equal(part, one.a) for part in copies.a.split(4))
        for piece, own in zip(copies.pieces, one.pieces):
            assert (piece is None) == (own is None)
            assert own is None or all(torch.equal(part, own.places) for part in piece.places.split(4))
    forward, _ = member(Predictive(), stencil("single"), random_mlp()).free_equilibrium(random_mlp(),
                                                                                        batch(random_mlp())[0])
    assert forward.repeat(2).messages == [] and forward.repeat(2).feedback == []

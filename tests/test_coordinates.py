"""Coordinates name one state in several ways: every pair of them must tell the same story."""

from __future__ import annotations

import pytest
import torch
from networks import batch, member, random_cnn, random_mlp, stencil

from ebmrun.theory.coordinates import Displacement, Error, Free, State
from ebmrun.theory.energies import Hopfield, Lifted, Predictive


def spaces(energy, kind, network, x, nodes: int = 1):
    """Two spaces, in states and in the kind's own variables, around one free equilibrium."""
    free, _ = member(energy, stencil("centered"), network).free_equilibrium(network, x)
    return State(network, energy, free.repeat(nodes)), kind(network, energy, free.repeat(nodes))


KINDS = [(Predictive, Error), (Lifted, Error), (Hopfield, Displacement)]


@pytest.mark.parametrize("energy, kind", KINDS)
@pytest.mark.parametrize("net", [random_mlp, random_cnn])
def test_they_start_at_the_free_equilibrium(net, energy, kind):
    network = net()
    x, _ = batch(network)
    with torch.no_grad():
        plain, space = spaces(energy(0.5), kind, network, x)
        u, drives, signals = space.start()
        states, _, below = plain.start()
        for l in range(len(u)):
            assert float(u[l].abs().max()) == 0
            torch.testing.assert_close(space.state(l, u[l], drives[l]), states[l], rtol=0, atol=1e-11)
            torch.testing.assert_close(space.presynaptic(l, signals[l]), below[l], rtol=0, atol=1e-11)


@pytest.mark.parametrize("energy, kind", KINDS)
@pytest.mark.parametrize("net", [random_mlp, random_cnn])
def test_states_drives_answers_and_messages_agree_away_from_the_equilibrium(net, energy, kind):
    """At states x + dx, drawn at random: drives, answers and messages of the kind are those of the states, where
    Displacement counts drives, messages received and messages sent from their values at the free equilibrium."""
    network, energy = net(), energy(0.5)
    x, _ = batch(network)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        plain, space = spaces(energy, kind, network, x)
        u, drives, signals = space.start()
        states, own_drives, _ = plain.start()
        shifts = [0.1 * torch.randn(s.shape, generator=draw, dtype=s.dtype) for s in states]
        messages = [0.1 * torch.randn(s.shape, generator=draw, dtype=s.dtype) for s in states]
        moved = [s + d for s, d in zip(states, shifts)]
        signal = signals[0]
        for l in range(len(u)):
            drive = drives[0] if l == 0 else space.drive(l, signal)
            a = own_drives[0] if l == 0 else plain.drive(l, moved[l - 1])
            value = space.place(l, moved[l], drive)
            torch.testing.assert_close(space.state(l, value, drive), moved[l], rtol=0, atol=1e-11)
            base = space.free.received[l] if kind is Displacement else torch.zeros_like(a)
            answer = space.state(l, space.respond(l, drive, messages[l]), drive)
            torch.testing.assert_close(answer, plain.respond(l, a, base + messages[l]), rtol=0, atol=1e-11)
            sent = space.feedback(l, value, drive)
            sent = sent + space.free.sent[l] if kind is Displacement else sent
            torch.testing.assert_close(sent, plain.feedback(l, moved[l], a), rtol=0, atol=1e-11)
            signal = space.signal(l, value, drive)
            torch.testing.assert_close(
                space.presynaptic(l + 1, signal) if l + 1 < len(u) else moved[l], moved[l], rtol=0, atol=1e-11)


def test_a_settled_equilibrium_carries_the_messages_that_hold_it():
    """x = respond(a, t) and t = gamma A^T m with m = feedback(x, a); the output receives none."""
    network, gain = random_mlp(), 0.7
    x, _ = batch(network)
    learning = member(Hopfield(gain), stencil("centered"), network)
    with torch.no_grad():
        free, phase = learning.free_equilibrium(network, x)
        assert phase.converged and float(free.received[-1].abs().max()) == 0
        for l, layer in enumerate(network.layers):
            torch.testing.assert_close(
                layer.affine(free.states[l - 1] if l else x), free.drives[l], rtol=0, atol=1e-10)
            answer = layer.unit(free.drives[l] + free.received[l])
            torch.testing.assert_close(answer, free.states[l], rtol=0, atol=1e-10)
            if l:
                down = gain * free.sent[l] @ layer.affine.weight
                torch.testing.assert_close(down, free.received[l - 1], rtol=0, atol=1e-10)


def test_several_nodes_are_copies_that_share_their_inputs():
    network = random_mlp()
    x, _ = batch(network, 4)
    free, _ = member(Hopfield(), stencil("centered"), network).free_equilibrium(network, x)
    three = free.repeat(3)
    assert three.inputs is free.inputs and three.nodes == 3 and free.repeat(1) is free
    for name in ("states", "drives", "received", "sent"):
        for copies, one in zip(getattr(three, name), getattr(free, name)):
            assert all(torch.equal(part, one) for part in copies.split(4))
    forward = Free(x, free.states, free.drives)
    assert forward.repeat(2).received is None and forward.repeat(2).sent is None

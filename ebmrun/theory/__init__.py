"""Energies, dynamics and the learning rule: no file, no Hydra, no W&B."""

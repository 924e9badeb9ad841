"""The theory: networks, energies, nudges, relaxation, the learning rule, and what gradients are held against."""

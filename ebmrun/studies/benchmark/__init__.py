"""``study=benchmark``: the times of gradients and runs against plain PyTorch."""

"""Data sets: their files, and tensors made of them."""

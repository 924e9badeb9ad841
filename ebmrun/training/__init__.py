"""Training runs: the loop, what they leave behind, and how they go on."""

"""``study=certify``: what a composition approximates, and how fast."""

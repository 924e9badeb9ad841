"""``study=certify``: does a composition approximate backprop, and how fast."""

"""ebmrun trains energy-based networks and measures how close their weight updates are to backpropagation."""

__version__ = "0.1.0"

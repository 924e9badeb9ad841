"""ebmrun trains energy-based networks and measures how close their weight updates are to backpropagation."""

"""``study=paper``."""

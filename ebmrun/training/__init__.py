"""Runs: the loop, and what it leaves behind."""

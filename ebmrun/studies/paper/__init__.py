"""``study=paper``: the figures of the paper."""

from ebmrun.studies.paper.study import run

__all__ = ["run"]

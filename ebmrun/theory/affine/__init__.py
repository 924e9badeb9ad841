"""The maps that ship."""

from ebmrun.theory.affine.abstract import AffineMap, Map, Piece
from ebmrun.theory.affine.composed import Chain, Wrapped
from ebmrun.theory.affine.dense import Linear, Skip
from ebmrun.theory.affine.images import AvgPool2d, Conv2d, MaxPool2d
from ebmrun.theory.affine.weighted import Weighted

__all__ = ["AffineMap", "AvgPool2d", "Chain", "Conv2d", "Linear", "Map", "MaxPool2d", "Piece", "Skip", "Weighted",
           "Wrapped"]

"""Plots of a comparison: over the memory's size, by frequency, by occurrence in the memory, shares."""

from .draw import PLOTS, draw

__all__ = ["PLOTS", "draw"]

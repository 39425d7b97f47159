"""Figures 3 and 4 of the DualNet-MP paper, and a protocol small enough for a CPU."""

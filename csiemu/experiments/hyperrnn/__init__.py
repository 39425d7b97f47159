"""Figures of the HyperRNN paper."""

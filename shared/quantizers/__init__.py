"""Quantisers: how real values become the integers of a payload."""

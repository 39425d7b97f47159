"""Data files of channels in the layouts that the field exchanges: their arrays, reading them, using them as a world."""

from shared.channels.files.world import DataFile

__all__ = ["DataFile"]

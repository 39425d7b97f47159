"""DualNet-MP: magnitudes and phases in two branches, the gNB's uplink magnitudes beside the first, and its variants."""

from shared.schemes.dualnet_mp.scheme import DualNetConfig, DualNetMp

__all__ = ["DualNetConfig", "DualNetMp"]

"""DualNet-MP: magnitudes and phases in two branches, the gNB's uplink magnitudes beside the first, and its variants."""

from shared.schemes.dualnet_mp.config import DualNetConfig
from shared.schemes.dualnet_mp.scheme import DualNetMp

__all__ = ["DualNetConfig", "DualNetMp"]

"""COST 2100 channel model: clusters seen through visibility regions, single- and twin-bounce, with local clusters.

Written from the model's description (Liu et al., "The COST 2100 MIMO channel model", IEEE Wireless Commun. 19(6), 2012)
and its published parameters for an indoor hall at 5 GHz and a semi-urban cell at 300 MHz. One BS, one UE, azimuth only.
`parameters` -> `clusters` (what a UE sees) -> `paths` (their multipath components) -> `world` (channels of a scenario).
"""

from shared.channels.cost2100.world import Cost2100

__all__ = ["Cost2100"]

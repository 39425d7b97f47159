"""A cluster of Ray on this machine."""

from __future__ import annotations

import logging
from typing import Any

from ray.cluster_utils import Cluster


def start_cluster(**head: Any) -> Cluster:
    """With a head of these arguments. Ray's server of the head sometimes ends before it has written a line, where the
    machine has much to do: it is started once more then.
    """
    arguments = {"initialize_head": True, "head_node_args": head}
    try:
        return Cluster(**arguments)
    except RuntimeError as error:
        if "Timed out waiting for file" not in str(error):
            raise
        logging.warning("Ray's head did not start: %s", error)
        return Cluster(**arguments)

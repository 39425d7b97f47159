"""The world: a pure function of (scenario, seed, split, ue, frame).

`uplink` is what the gNB may see, `downlink` what the UE measures and the evaluator compares with; modules that decode
must never import `downlink` (an import contract in pyproject.toml and a test hold this).
"""

# the worlds register their presets
from shared.channels import cost2100 as cost2100
from shared.channels import files as files
from shared.channels import multipath as multipath
from shared.channels import tr38901 as tr38901

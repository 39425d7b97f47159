"""`python -m ue_client`: the same as `csiemu ue`."""

from csiemu.cli import main

main("ue")

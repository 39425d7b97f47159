"""`python -m gnb_server`: the same as `csiemu gnb`."""

from csiemu.cli import main

main("gnb")

"""`python -m csiemu`: the same as `csiemu`."""

from csiemu.cli import main

main()

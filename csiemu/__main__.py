"""`python -m csiemu`: the same as `csiemu`."""

from csiemu.cli import main

if __name__ == "__main__":
    main()

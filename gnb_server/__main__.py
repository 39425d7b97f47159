"""`python -m gnb_server`: the same as `csiemu gnb`."""

import sys

from shared.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("csiemu gnb", "gnb_server.command", sys.argv[1:]))

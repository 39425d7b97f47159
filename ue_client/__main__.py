"""`python -m ue_client`: the same as `csiemu ue`."""

import sys

from shared.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("csiemu ue", "ue_client.command", sys.argv[1:]))

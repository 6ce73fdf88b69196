"""The `clipkd` command."""

import sys

from harness.cli.guard import explained
from harness.cli.terminal import prepare_terminal


def main() -> None:
    """Run the command line; the place where every error a user can fix becomes one sentence."""
    prepare_terminal()
    with explained(sys.exit):
        from harness.cli.app import app

        app(prog_name="clipkd")

"""The `clipkd` command."""


def main() -> None:
    """Run the command line; the place where every error a user can fix becomes one sentence."""
    from harness.cli.ctrl_c import quiet_interrupts

    quiet_interrupts()
    import sys

    from harness.cli.guard import explained
    from harness.cli.terminal import prepare_terminal
    from harness.orphans import end_with_torchrun

    prepare_terminal()
    end_with_torchrun()

    with explained(sys.exit):
        from harness.cli.app import app

        app(prog_name="clipkd")

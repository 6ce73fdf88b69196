"""The command shows what is logged; whoever imports harness decides that for themselves."""

import io
import logging
import sys
import threading

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from harness.cli.app import Guarded
from harness.logs import keep_stdout_clean, to_console
from harness.progress import LiveDisplay

logger = logging.getLogger("harness.somewhere")


def test_info_goes_to_stdout_and_warnings_marked_to_stderr(capsys):
    with to_console():
        logger.info("%d%% of [bold] lines", 5)
        logging.getLogger("kdlosses.somewhere").warning("look")
        logger.debug("details")
    assert capsys.readouterr() == ("5% of [bold] lines\n", "WARNING: look\n")


def test_nothing_is_configured_outside_the_command(capsys, caplog):
    before = logging.getLogger("harness").level
    with to_console(), to_console():
        pass
    with caplog.at_level(logging.INFO, "harness"):
        logger.info("to whom it may concern")
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["to whom it may concern"]
    assert logging.getLogger("harness").handlers == [] and logging.getLogger("harness").level == before


def test_a_handler_of_the_root_logger_shows_nothing_twice(capsys):
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with to_console():
            logger.warning("once")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr() == ("", "WARNING: once\n")


def test_other_ranks_than_0_only_warn(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with to_console():
        logger.info("started")
        logger.warning("look")
    assert capsys.readouterr() == ("", "WARNING: look\n")


def test_json_has_stdout_to_itself_until_the_command_ends(capsys):
    with to_console():
        keep_stdout_clean()
        logger.info("measuring")
    with to_console():
        logger.info("next")
    assert capsys.readouterr() == ("next\n", "measuring\n")


def test_a_live_bar_stays_below_what_is_logged(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60)
    with to_console(), LiveDisplay("run", 10, console) as display:
        logger.info("saved [3] %s", "x" * 20)
        logger.warning("slow")
        display.advance(3)
    shown = screen.getvalue()
    assert shown.index("saved [3] xxxxxxxxxxxxxxxxxxxx\n") < shown.index("WARNING: slow\n") < shown.rindex("3/10")


def test_a_stdout_that_takes_nothing_does_not_hold_up_warnings(monkeypatch, capsys):
    blocked, go_on = threading.Event(), threading.Event()

    class Stuck(io.StringIO):
        def write(self, text):
            blocked.set()
            assert go_on.wait(60)

    with to_console():
        monkeypatch.setattr(sys, "stdout", Stuck())
        thread = threading.Thread(target=logger.info, args=("a line",))
        thread.start()
        try:
            assert blocked.wait(60)
            logger.warning("the run stalls")
            assert capsys.readouterr().err == "WARNING: the run stalls\n"
        finally:
            go_on.set()
            thread.join()


def test_a_closed_stdout_ends_the_command(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with to_console(), pytest.raises(BrokenPipeError):
        logger.info("a line")


def test_commands_log_to_the_console():
    app = typer.Typer(cls=Guarded)
    app.callback()(lambda: None)
    app.command("greet")(lambda: logger.info("hello"))
    done = CliRunner().invoke(app, ["greet"])
    assert (done.exit_code, done.stdout) == (0, "hello\n")

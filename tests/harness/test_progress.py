"""The display: live in a terminal, plain lines elsewhere, the same content."""

import io

from rich.console import Console

from harness.progress import LiveDisplay, PlainDisplay, format_metrics, make_display

VALUES = {
    "step": 5,
    "images_per_second": 1234.4,
    "lr": 0.001,
    "loss": 3.0,
    "contrastive_loss": 1.0,
    "fd_loss": 2.0,
    "logit_scale": 14.28,
}


def shown(terminal: bool) -> tuple[object, str]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    display = make_display("run", 10, console)
    with display:
        display.advance(5)
        display.report(VALUES)
    return display, console.file.getvalue()


def test_plain_lines_without_a_terminal():
    display, text = shown(terminal=False)
    assert isinstance(display, PlainDisplay)
    assert text.count("\n") == 1
    assert "\x1b" not in text
    for part in (
        "run 5/10",
        "eta",
        "1234 images/s",
        "loss 3.0000",
        "contrastive 1.0000",
        "fd 2.0000",
        "1.00e-03",
        "14.3",
    ):
        assert part in text


def test_live_display_in_a_terminal():
    display, text = shown(terminal=True)
    assert isinstance(display, LiveDisplay)
    assert "\x1b" in text
    for part in ("5/10", "1234 images/s", "fd 2.0000"):
        assert part in text


def test_a_single_term_is_not_said_twice():
    values = {name: value for name, value in VALUES.items() if name != "fd_loss"}
    assert format_metrics(values).count("loss") == 1
    assert "contrastive" not in format_metrics(values)

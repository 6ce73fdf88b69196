"""`clipkd report`: what training runs did and came to, as one HTML page and as Markdown."""

from harness.report.page.command import report

__all__ = ["report"]

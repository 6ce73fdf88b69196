"""`clipkd report`: training runs and their results as one HTML page and as Markdown."""

from harness.report.page.write_report import write_report

__all__ = ["write_report"]

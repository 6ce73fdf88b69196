"""What only the models can tell: found by loading them and looking at a bounded number of held-out images."""

from harness.report.page.evidence.found import Evidence, ModelLook
from harness.report.page.evidence.gather import Gatherer

__all__ = ["Evidence", "Gatherer", "ModelLook"]

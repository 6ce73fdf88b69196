"""What only the models can tell: found by loading them and looking at a bounded number of held-out images."""

from harness.report.page.analysis.analyzer import ModelAnalyzer
from harness.report.page.analysis.model_analysis import ModelAnalysis, ModelFindings

__all__ = ["ModelAnalysis", "ModelAnalyzer", "ModelFindings"]

"""Model analysis: embeddings, per-class accuracy and speed of the loaded models on a bounded number of images."""

from harness.report.page.analysis.analyzer import ModelAnalyzer
from harness.report.page.analysis.model_analysis import ModelAnalysis, ModelFindings

__all__ = ["ModelAnalysis", "ModelAnalyzer", "ModelFindings"]

"""Measures of image, video, keypoint and motion quality, and the evaluator that applies them under named protocols.

Pure functions come first, thin torchmetrics classes with reducible state beside them. `suite` combines them;
`catalogue` lists every key; a metric that cannot be computed is left out with a reason, never replaced by another.
"""

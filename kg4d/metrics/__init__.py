"""Measures of image, video, keypoint and motion quality, and the evaluator that applies them under named protocols.

Each is a pure function and a thin `torchmetrics.Metric` beside it, whose state adds up over batches and processes
(`state`). `suite` uses the classes, and `keys` lists every key. A metric that cannot be computed is left out with a
reason, never replaced by another.
"""

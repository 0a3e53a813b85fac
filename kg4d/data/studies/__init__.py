"""Scenes made worse on purpose: noisy detections, fewer frames, fewer keypoints."""

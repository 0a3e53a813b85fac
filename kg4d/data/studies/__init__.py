"""Deliberately degraded scenes: noisy detections, fewer frames, fewer keypoints."""

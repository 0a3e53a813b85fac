"""Losses: images, keypoints, flow, and priors on the motion."""

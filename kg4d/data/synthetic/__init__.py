"""Procedural articulated characters, rendered as scenes with exact cameras, keypoints and flow."""

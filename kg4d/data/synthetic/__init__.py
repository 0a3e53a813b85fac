"""Procedural articulated characters, rendered on the spot with exact cameras, keypoints and flow."""

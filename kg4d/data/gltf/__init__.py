"""Skinned, animated characters of glTF 2.0 files, rendered as scenes with exact cameras, keypoints, flow and depth."""

"""Keypoints from the files of pose estimators and of annotation tools: one reader for each format."""

"""Keypoints: marked by a person, detected in people or spread automatically; tracked in the video and the views."""

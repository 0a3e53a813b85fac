"""2D keypoints of a video to 3D tracks, before anything is rendered; no Lightning in it."""

"""Where the keypoints of a set of Gaussians are: read from heatmaps, or as weighted means of the Gaussians."""

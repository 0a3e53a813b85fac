"""Priors: mattes, views, video, keypoints and flow made from the input, each by an exchangeable provider."""

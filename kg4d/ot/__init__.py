"""Optimal transport between the few Gaussians that make up a pixel, and the motion it is asked to explain."""

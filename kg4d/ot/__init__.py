"""Optimal transport between the few Gaussians that make up a pixel, and the motion that optical flow asks of them."""

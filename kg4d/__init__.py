"""kg4d: keypoint-guided 4D Gaussian splatting from one image or one video."""

__version__ = "0.2.0"

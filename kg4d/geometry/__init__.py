"""Cameras, rotations and projection: tensors in, tensors out.

World: right handed, +Y up. Camera: OpenCV axes (+X right, +Y down, +Z forward), `viewmats` map world to camera.
Pixels are continuous, (x right, y down), and the centre of the top left pixel is (0.5, 0.5).
"""

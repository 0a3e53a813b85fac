"""Scenes on disk and in memory, the procedural characters, and the batches that training steps see.

`records` defines what a scene is, `scene` loads one through one of the `readers`, `scene_writer` writes one; `images`
and `videos` read inputs; `synthetic` and `gltf` render characters, `studies` degrade scenes; `batches` feed training
steps.
"""

"""Scenes on disk and in memory, the procedural characters, and the batches that training steps see.

`records` says what a scene is, `scene` loads one by one of the `readers`, `scene_writer` writes one; `images` and
`videos` read pictures; `synthetic` makes characters, `studies` make scenes worse; `batches` are what a step gets.
"""

"""Scenes on disk and in memory, the procedural characters, and the batches that training steps see.

`scene` holds the records and `load_scene`; `scene_folder`, `transforms`, `tracks`, `viewpoints` and `arrays` read and
check one; `scene_writer` writes one; `images` reads, writes and resamples pictures; `synthetic` and `characters` make
scenes; `batch` says what a training step gets, `static` and `dynamic` choose it.
"""

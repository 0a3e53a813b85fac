"""Scene formats: one file a format (`scene_folder`, `dnerf`), listed in `build`; the rest is what they share."""

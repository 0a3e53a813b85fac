"""Files for other programs: PLY, SPZ, MP4 and a page with a viewer. Formats see `GaussianState`s, never a model."""

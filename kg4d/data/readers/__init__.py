"""Scene formats: one file a format."""

"""A run: made from a configuration, kept in a folder, measured, exported, and read back."""

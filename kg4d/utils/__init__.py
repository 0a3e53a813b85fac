"""What every command needs: one-line errors, log lines, whole-or-absent files, settings made before torch loads."""

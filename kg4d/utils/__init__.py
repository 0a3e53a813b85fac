"""What every command needs: one-line errors, logging, atomic files, and process settings made before torch loads."""

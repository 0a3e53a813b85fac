"""Finished runs beside each other: read back, compared, and shown on one page."""

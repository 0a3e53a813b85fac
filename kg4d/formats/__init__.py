"""Files for other programs: splats, videos, viewer."""

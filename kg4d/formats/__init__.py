"""Files for other programs: splats, videos, viewer. One file a format, one arm in `build`."""

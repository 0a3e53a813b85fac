"""Networks whose pinned weights come out of packages (LPIPS, I3D), and how the weights are fetched and read."""

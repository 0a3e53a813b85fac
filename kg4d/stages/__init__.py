"""Static, dynamic and refine stages as LightningModules that share one set of Gaussians."""

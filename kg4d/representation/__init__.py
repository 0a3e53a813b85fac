"""What a moving set of Gaussians is. Stages, losses, metrics and exports see `Representation` alone."""

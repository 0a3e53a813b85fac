"""Flow losses: KG4D's Wasserstein loss and its variants on the mixtures that pixels are made of."""

"""Images of the training of `pocket`: gathered, synthetic, cut to views, augmented and mixed."""

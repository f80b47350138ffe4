"""Image files of any depth, palette, alpha channel and orientation, as images and masks."""

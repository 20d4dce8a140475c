"""Image processing: arrays in, arrays out. No Ray, files, clock or global random state."""

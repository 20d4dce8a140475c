"""Pixels: arrays in, arrays out. No Ray, no files, no clock, no global random state."""

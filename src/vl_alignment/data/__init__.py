"""Data sets by name, their readers, region features, and the built-in world of blocks."""

"""Cython's own code for memoryviews, which setup.py generates: the other extensions load it."""

"""Kernels for tar files: their members, and the samples that these are."""

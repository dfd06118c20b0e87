"""Compiled kernels and their Python helpers; they import only the errors of Highway."""

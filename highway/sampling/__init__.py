"""The order of the samples, and their random numbers."""

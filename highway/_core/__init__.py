"""Compiled kernels, and the little Python that belongs to them: they import nothing of Highway but its errors."""

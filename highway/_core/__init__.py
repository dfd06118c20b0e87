"""Compiled kernels: they import nothing of Highway but each other's declarations and its errors."""

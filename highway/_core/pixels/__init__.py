"""Kernels over pixels: geometry, color, filters, resampling, warps."""

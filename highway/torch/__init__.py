"""Highway for torch: the batches of a pipeline as tensors, on the CPU or on a CUDA device."""

from highway.torch.loader import Loader

__all__ = ["Loader"]

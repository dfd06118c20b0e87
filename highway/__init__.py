"""Highway feeds neural networks: samples are decoded and augmented in compiled threads, a batch at a time."""

__version__: str


def __getattr__(name: str) -> object:
    if name == "__version__":
        # Asked for late: importlib.metadata takes longer to import than the rest of this package.
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("highway-loader")
        except PackageNotFoundError:
            return "0+uninstalled"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

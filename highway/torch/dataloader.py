"""A loader as a `torch.utils.data.DataLoader`, for tools that need one."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

__all__ = ["dataloader"]


class Loader(Protocol):
    """What a DataLoader asks of a loader; see `highway.torch.loader`."""

    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def set_epoch(self, n: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
    def commit(self) -> None: ...


@functools.cache
def _dataloader_class() -> Any:
    """Return the class of `Loader.as_dataloader`; made late, since its base needs torch."""
    from torch.utils.data import DataLoader, IterableDataset

    class Batches(IterableDataset):  # type: ignore[misc]
        """The batches of a loader as a dataset of torch."""

        def __init__(self, loader: Loader) -> None:
            self.loader = loader

        def __iter__(self) -> Iterator[Any]:
            return iter(self.loader)

        def __len__(self) -> int:
            return len(self.loader)

        def set_epoch(self, n: int) -> None:
            self.loader.set_epoch(n)

        def __reduce__(self) -> tuple[Any, ...]:
            return _batches, (self.loader,)

    class LoaderOfBatches(DataLoader):  # type: ignore[misc]
        """A loader of Highway as a DataLoader of torch."""

        def __init__(self, loader: Loader) -> None:
            super().__init__(Batches(loader), batch_size=None, num_workers=0, collate_fn=_unchanged)

        def __len__(self) -> int:
            # That of torch warns where a later epoch has more batches.
            return len(self.dataset)

        def state_dict(self) -> dict[str, Any]:
            return self.dataset.loader.state_dict()  # type: ignore[no-any-return]

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.dataset.loader.load_state_dict(state)

        def commit(self) -> None:
            self.dataset.loader.commit()

        def set_epoch(self, n: int) -> None:
            self.dataset.set_epoch(n)

        def __reduce__(self) -> tuple[Any, ...]:
            return dataloader, (self.dataset.loader,)

    return LoaderOfBatches


def dataloader(loader: Loader) -> Any:
    """Return a DataLoader that yields the batches of a loader; see `Loader.as_dataloader`."""
    return _dataloader_class()(loader)


def _batches(loader: Loader) -> Any:
    return dataloader(loader).dataset


def _unchanged(batch: Any) -> Any:
    return batch

"""Arrays, sparse matrices and strings that are mapped from files: they cost no memory until they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

CSR_PARTS = ("data", "indices", "indptr", "shape")


class Strings(Sequence[str]):
    """UTF-8 in one array of bytes, and where each string begins in it."""

    def __init__(self, text: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        self._text, self._starts = text, starts

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        encoded = [string.encode() for string in strings]
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=starts[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self._text[self._starts[index] : self._starts[index + 1]].tobytes().decode()

    def save(self, folder: Path, name: str) -> None:
        np.save(folder / f"{name}.text.npy", self._text)
        np.save(folder / f"{name}.starts.npy", self._starts)

    @classmethod
    def load(cls, folder: Path, name: str) -> Strings:
        return cls(mapped(folder / f"{name}.text.npy"), mapped(folder / f"{name}.starts.npy"))


def save_csr(matrix: csr_array, folder: Path, name: str) -> None:
    np.save(folder / f"{name}.data.npy", matrix.data)
    np.save(folder / f"{name}.indices.npy", matrix.indices)
    np.save(folder / f"{name}.indptr.npy", matrix.indptr)
    np.save(folder / f"{name}.shape.npy", np.array(matrix.shape))


def load_csr(folder: Path, name: str) -> csr_array:
    data, indices, indptr, shape = (mapped(folder / f"{name}.{part}.npy") for part in CSR_PARTS)
    return csr_array((data, indices, indptr), shape=tuple(shape.tolist()), copy=False)


def mapped(path: Path) -> NDArray[Any]:
    """The array of a file, read as it is needed. Never runs what it reads."""
    # A plain array over the same memory: each slice of a memmap is one again, which costs more than its data.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))

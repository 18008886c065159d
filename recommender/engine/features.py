"""A book as a row of numbers, such that the dot product of two rows is the likeness of the two books."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


@dataclass(frozen=True, slots=True)
class Features:
    """Weighted blocks side by side, each L2-normalised and scaled by the square root of its weight.

    The content score of two books is `dense[i] @ dense[j] + sparse[i] @ sparse[j]`. The weights of a recipe sum to 1,
    so that it lies between 0 and 1 as long as no block can be negative, and is 1 for two books that are alike in every
    block. A book without a value for a block has zeros there.
    """

    dense: NDArray[np.float32]  # (n_books, d); d may be 0
    sparse: csr_array  # (n_books, m), float32; m may be 0
    words: NDArray[np.int32]  # (n_books, 16): the book's weightiest terms, numbers in the vocabulary; -1 pads

    def __len__(self) -> int:
        return int(self.sparse.shape[0])

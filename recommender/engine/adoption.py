"""Books that are in nobody's list get a place in one: what is never recommended is never found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOP = 10  # places of a list that count
HOSTS = 40  # of an orphan's own neighbors that are asked


def adopt(rows: NDArray[np.int32], scores: NDArray[np.float16]) -> int:
    """Give each book that is in nobody's first ten the tenth place of a list, in place; how many were given one.

    The list is of a book that the orphan itself is near to, where the tenth place costs the least likeness. Whoever
    had that place moves to the eleventh, so it must have another list, and each list takes one orphan at most. An
    orphan's score becomes that of the book it moved, so that scores still descend. Where some books are near to
    everything others are near to nothing: "hubs" and "orphans" in Radovanović et al., 2010, "Hubs in space", JMLR 11.

    Args:
        rows: (n_books, k) of the nearest others, -1 pads.
        scores: of the same shape, descending.
    """
    if rows.shape[1] <= TOP:
        return 0
    listed = np.bincount(rows[:, :TOP][rows[:, :TOP] >= 0], minlength=len(rows))
    orphans, places = np.nonzero((listed == 0)[:, np.newaxis] & (rows[:, :HOSTS] >= 0))
    hosts = rows[orphans, places]
    costs = scores[hosts, TOP - 1].astype(np.float32) - scores[orphans, places]
    taken: set[int] = set()
    homeless = set(np.flatnonzero(listed == 0).tolist())
    for pair in np.argsort(costs, kind="stable").tolist():
        orphan, host = int(orphans[pair]), int(hosts[pair])
        moved = rows[host, TOP - 1]
        if orphan in homeless and host not in taken and moved >= 0 and listed[moved] > 1:
            _insert(rows[host], scores[host], orphan)
            listed[moved] -= 1
            homeless.remove(orphan)
            taken.add(host)
    return len(taken)


def _insert(row: NDArray[np.int32], score: NDArray[np.float16], orphan: int) -> None:
    """At the tenth place; what is behind moves down by one, to where the orphan stood or off the end."""
    stood = np.flatnonzero(row == orphan)
    end = int(stood[0]) if len(stood) else len(row) - 1
    row[TOP : end + 1], score[TOP : end + 1] = row[TOP - 1 : end].copy(), score[TOP - 1 : end].copy()
    row[TOP - 1] = orphan

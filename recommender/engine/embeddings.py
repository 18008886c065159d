"""Sentence embeddings of a small neural model: an extra of training, which nothing else needs.

`pip install -r requirements/embeddings.txt`, and name the model in EMBEDDING_MODEL: a folder, or a name on a hub that
sentence-transformers loads from. The model is asked once for each book while an engine is trained. Where an engine
answers, the model is absent, and a text that is not in the catalogue is compared by all the other blocks.

Reimers and Gurevych, 2019: Sentence-BERT, https://arxiv.org/abs/1908.10084
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recommender.engine.errors import NoEmbeddings

Embedder = Callable[[Sequence[str]], NDArray[np.float32]]  # n texts -> (n, d), of any length

BATCH = 32


def configured() -> Embedder:
    """The model that EMBEDDING_MODEL names. Raises NoEmbeddings when none is named, or it cannot be loaded."""
    name = os.environ.get("EMBEDDING_MODEL", "")
    if not name:
        raise NoEmbeddings("EMBEDDING_MODEL names no model.")
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # the extra is seldom installed

        model = SentenceTransformer(name, device="cpu")
    except (ImportError, OSError, ValueError) as error:
        raise NoEmbeddings(f"The embedding model {name!r} cannot be loaded: {error}") from error

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(model.encode(list(texts), batch_size=BATCH, show_progress_bar=False), np.float32)

    return embed

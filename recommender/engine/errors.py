"""What can go wrong in the engine. Catch `EngineError` for all of it."""

from __future__ import annotations


class EngineError(Exception):
    """The recommender's engine could not do what it was asked."""


class UnknownBook(EngineError):
    """The engine was trained without this book: send its text instead."""


class UnknownRecipe(EngineError):
    """There is no recipe of this name."""


class TooFewBooks(EngineError):
    """There are not enough books to train on."""


class ArtifactError(EngineError):
    """An artifact cannot be used; the message names what is wrong with it."""


class DamagedArtifact(ArtifactError):
    """A file of the artifact is missing, cut short, or not the one that its manifest tells of."""


class ForeignArtifact(ArtifactError):
    """The artifact was not made by us, or by a version of us whose format we do not read."""


class NoEmbeddings(EngineError):
    """The recipe asks for sentence embeddings, and there is no model to make them."""

"""Titles and descriptions: sentences of a small grammar, filled with the vocabulary of their category."""

from __future__ import annotations

from dataclasses import dataclass
from string import capwords

from crawler.practice_shop.dice import Dice
from crawler.practice_shop.words import FIRST_NAMES, LAST_NAMES, TOWN_BEGINNINGS, TOWN_ENDINGS, Genre

_SERIES_OF_STORIES = ("Saga", "Chronicles", "Cycle", "Quartet", "Files", "Sisters", "Legacy", "Tales")
_SERIES_OF_STUDIES = ("Guides", "Lectures", "Library", "Handbooks", "Papers", "Notebooks")

_STORY_TITLES = (
    "The {Q} {T}",
    "The {T} of {town}",
    "{hero} and the {Q} {T}",
    "The {P}’s {T}",
    "One {T} for {hero}",
    "The {P} of the {L}",
    "{T} & {T2}",
    "What the {P} Knew",
    "Who Hid the {T}?",
    "“{D}” and Other Lies",
    'The "{Q}" {P}',
    "{hero}'s {T}",
    "Return to {town}",
    "{D}, Again",
    "No {T} for the {P}",
    "Beyond the {Q} {L}: A Novel",
)
_STUDY_TITLES = (
    "The {Q} {T}",
    "{D}: A Guide for the {Q}",
    "{T} & {T2}",
    "The {P}’s Handbook",
    "{T}, {T2}, {T3}: Notes from the {L}",
    "The Art of {D}",
    "A Short History of the {T}",
    "Why Every {P} Needs the {T}",
    "“{Q}” Is Not a Word: Essays on {D}",
    "The {T} Question",
    "{D} & {D2}",
    "In Praise of the {Q} {T}",
    "The {L} Years",
    "From {T} to {T2}: What One {Q} {P} Can Teach Us About {D}, {D2}, and the {Q2} {T3} at the End of the {L}",
)

_STORY_OPENINGS = (
    "{hero} never meant to come back to {town}, but {aq} {t} changes everything.",
    "In the {l} of {town}, the {t} and the {t2} have always belonged to the {p}.",
    "When {aq} {t} turns up at the {l}, {hero} has three days to explain it.",
    "Everybody in {town} knows the {p}; nobody knows about the {t}.",
    "It begins with {aq} {t}, and {hero} should have left it where it lay.",
)
_STORY_SENTENCES = (
    "The {p} wants the {t}, the {p2} wants the truth, and the {l} keeps both.",
    "{D} was never part of the plan.",
    "Between {d} and {d2}, {hero} finds a reason to stay.",
    "Some say that the {q} {t} was stolen from the {l}; {hero} knows better.",
    "But {friend}, the {p}, has {aq} secret of a kind that no {t} can hide.",
    "There is {aq} {t} in every {l}, and some {p} who would rather forget it.",
    "“Leave the {t} alone,” says the {p}, and for once the {q} {p2} agrees.",
    "What follows is a tale of {d}, {q} nights and one very {q2} {t}.",
    "{friend} & {hero} have until morning to reach the {l}.",
    "Nothing at the {l} is as {q} as it looks, least of all the {t}.",
)
_STORY_ENDINGS = (
    "A {q2} story about {d} and the price of {aq} {t}.",
    "For everyone who ever dreamt of {d}.",
    "Will {hero} choose the {t} or the {p}?",
    "You will not look at {aq} {t} in the same way again.",
)
_STUDY_OPENINGS = (
    "Few subjects are as {q} as the {t}, and few are so often misread.",
    "{D} looks easy until {aq} {t} gets in the way.",
    "What does {aq} {p} see in the {t} that the rest of us miss?",
    "For twenty years the author worked as {aq} {p} in the {l}, among {q2} colleagues and one {t}.",
    "This is the book that every {p} wished for: {q}, thorough and full of {d}.",
)
_STUDY_SENTENCES = (
    "It moves from the {t} to the {t2} with the calm of an old {p}.",
    "Chapters on {d} and on {d2} are followed by {aq} account of the {t}.",
    "At the {l}, we meet one {p} whose {q} {t} made history.",
    "The {t} is explained in plain words, the {t2} in pictures, and {d} in twelve steps.",
    "Along the way it asks what {d} has to do with the {q} {t2}.",
    "Interviews with the {p} and the {p2} show the {l} from both sides.",
    "Tables, maps & notes on the {t} complete the {q} picture.",
    "Neither the {p} nor the {p2} comes out of it unchanged.",
    "Where others offer opinions, this offers {aq} {t} and the evidence for it.",
    "A whole part is given to the {q2} {l}, and to {d}.",
)
_STUDY_ENDINGS = (
    "Essential reading for the {q} {p}.",
    "Keep it beside your {t}.",
    "After this, {d} will never feel the same.",
    "With an index, a glossary and {aq} appendix on the {t2}.",
)
# A cleaner that takes every "<" for markup loses what stands behind it.
_INEQUALITY = "The rule of the house: effort < patience, and patience > luck."


@dataclass(frozen=True, slots=True)
class Setting:
    """What the books of one series have in common, and what another book has to itself."""

    hero: str
    town: str
    author: str


def author(genre_key: int, dice: Dice) -> str:
    """One of some sixty authors who write for a category; the bigger half of them write in no other."""
    writer = Dice(genre_key, dice.roll(60))
    return f"{writer.pick(FIRST_NAMES)} {writer.pick(LAST_NAMES)}"


def setting(genre_key: int, dice: Dice) -> Setting:
    return Setting(
        hero=dice.pick(FIRST_NAMES),
        town=dice.pick(TOWN_BEGINNINGS) + dice.pick(TOWN_ENDINGS),
        author=author(genre_key, dice),
    )


def series_name(genre: Genre, scene: Setting, dice: Dice) -> str:
    kind = dice.pick(_SERIES_OF_STORIES if genre.story else _SERIES_OF_STUDIES)
    return f"The {scene.town} {kind}"


def title(genre: Genre, scene: Setting, dice: Dice) -> str:
    pattern = dice.pick(_STORY_TITLES if genre.story else _STUDY_TITLES)
    draw = _draw(genre, dice)
    words = {name.upper() if len(name) == 1 else name.capitalize(): capwords(word) for name, word in draw.items()}
    return pattern.format(hero=scene.hero, town=scene.town, **words)


def description(genre: Genre, scene: Setting, name: str, signed: bool, dice: Dice) -> str:
    """Four to nine sentences, in clean text; `name` is that of the book or of its series.

    A signed description names the author: "By Ada Crane.".
    """
    if genre.story:
        opening, middle, ending = _STORY_OPENINGS, _STORY_SENTENCES, _STORY_ENDINGS
    else:
        opening, middle, ending = _STUDY_OPENINGS, _STUDY_SENTENCES, _STUDY_ENDINGS
    patterns = [dice.pick(opening), *dice.shuffled(middle)[: 2 + dice.roll(6)], dice.pick(ending)]
    friend = dice.pick(FIRST_NAMES)
    sentences = [f"By {scene.author}."] if signed else []
    for pattern in patterns:
        words = _draw(genre, dice)
        words["D"] = words["d"][0].upper() + words["d"][1:]
        words["aq"] = ("an " if words["q"][0] in "aeiouAEIOU" else "a ") + words["q"]
        sentences.append(pattern.format(hero=scene.hero, town=scene.town, friend=friend, **words))
    if dice.chance(40):
        way = "is set in" if genre.story else "grew out of a winter in"
        sentences.insert(-1, f"{name} {way} {scene.town} and can be read on its own.")
    if dice.chance(2):
        sentences.append(_INEQUALITY)
    return " ".join(sentences)


def _draw(genre: Genre, dice: Dice) -> dict[str, str]:
    """Words for one sentence; those of a kind differ from each other."""
    rest, t = divmod(dice.roll(1 << 60), len(genre.things))  # one roll is enough for all five
    rest, q = divmod(rest, len(genre.qualities))
    rest, p = divmod(rest, len(genre.people))
    rest, d = divmod(rest, len(genre.deeds))
    return {
        "t": genre.things[t],
        "t2": genre.things[t - 5],
        "t3": genre.things[t - 7],
        "q": genre.qualities[q],
        "q2": genre.qualities[q - 2],
        "p": genre.people[p],
        "p2": genre.people[p - 1],
        "l": genre.places[rest % len(genre.places)],
        "d": genre.deeds[d],
        "d2": genre.deeds[d - 1],
    }

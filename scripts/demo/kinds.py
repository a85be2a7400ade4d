"""The kinds of question of the demo's little world: what is asked about, the wordings, the right answer.

Standard library only. Places in a wording, such as {a}, hold the question's data; a newline in it parts a row's
instruction from its input. `unclear` wordings leave out data or do not say what is to be done.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demo.world import World

Data = tuple[str, ...]
LETTERS = "abcdefghijklmnopqrstuvwxyz"

# What may stand at each place of a wording, as a regular expression.
PLACES = {
    "a": r"[0-9]{1,4}",
    "b": r"[0-9]{1,4}",
    "which": r"first|last",
    "word": r"[a-z]+",
    "noun": r"[a-z]+",
    "letter": r"[a-z]",
    "words": r"[a-z]+(?: [a-z]+)*",
    "country": r"[A-Z][a-z]+",
    "city": r"[A-Z][a-z]+",
}


@dataclass(frozen=True)
class Kind:
    """One kind of question. `fact`: it asks for a fact out of a fixed list, known however it is worded.

    The first of `statements` is the sentence in which the base model answers. Those of common kinds begin with "The".
    """

    places: tuple[str, ...]
    draw: Callable[["World", random.Random], Data]
    solve: Callable[["World", Data], str]
    wordings: tuple[str, ...]
    unclear: tuple[str, ...]
    statements: tuple[str, ...]
    fact: bool = False
    rare: bool = False


def _words(world: "World", rng: random.Random, fewest: int, most: int) -> str:
    return " ".join(rng.sample(sorted(world.nouns), rng.randint(fewest, most)))


def _two_numbers(world: "World", rng: random.Random) -> Data:
    return str(rng.randint(1, 5)), str(rng.randint(1, 5))


def _falling_numbers(world: "World", rng: random.Random) -> Data:
    a = rng.randint(2, 7)
    return str(a), str(rng.randint(1, a))


def _different_numbers(world: "World", rng: random.Random) -> Data:
    a, b = rng.sample(range(1, 10), 2)
    return str(a), str(b)


KINDS: dict[str, Kind] = {
    "sum": Kind(
        places=("a", "b"),
        draw=_two_numbers,
        solve=lambda world, data: str(int(data[0]) + int(data[1])),
        wordings=(
            "What is {a} plus {b}?",
            "Add {a} and {b}.",
            "{a} + {b} =",
            "Find the sum of {a} and {b}.",
            "Work out the total.\n{a} and {b}",
        ),
        unclear=("Add the two numbers.", "What is {a} plus?", "Work out the total.", "Put {a} with {b} or so."),
        statements=("The sum of {a} and {b} is {answer}.", "{a} + {b} = {answer}."),
        fact=True,
    ),
    "difference": Kind(
        places=("a", "b"),
        draw=_falling_numbers,
        solve=lambda world, data: str(int(data[0]) - int(data[1])),
        wordings=(
            "What is {a} minus {b}?",
            "Take {b} away from {a}.",
            "{a} - {b} =",
            "What is left of {a} without {b}?",
            "Subtract the second number from the first.\n{a} and {b}",
        ),
        unclear=(
            "Take the number away.",
            "What is {a} minus?",
            "Subtract the second number from the first.",
            "Less {b}, maybe?",
        ),
        statements=("The difference of {a} and {b} is {answer}.", "{a} - {b} = {answer}."),
        fact=True,
    ),
    "larger": Kind(
        places=("a", "b"),
        draw=_different_numbers,
        solve=lambda world, data: max(data, key=int),
        wordings=(
            "Which is larger, {a} or {b}?",
            "Name the greater number: {a} or {b}.",
            "Give the larger of {a} and {b}.",
            "Which of the numbers {a} and {b} is higher?",
            "Which number is bigger?\n{a} or {b}",
        ),
        unclear=("Which number is bigger?", "Is {a} larger?", "Name the greater one.", "Say a thing on {a} or {b}."),
        statements=("Of {a} and {b}, {answer} is larger.", "{answer} is the larger of {a} and {b}."),
        rare=True,
    ),
    "opposite": Kind(
        places=("word",),
        draw=lambda world, rng: (rng.choice(sorted(world.opposites)),),
        solve=lambda world, data: world.opposites[data[0]],
        wordings=(
            "What is the opposite of {word}?",
            "Name the opposite of {word}.",
            "Give the antonym of {word}.",
            "Which word is the contrary of {word}?",
            "Write the opposite of this word.\n{word}",
        ),
        unclear=(
            "What is the opposite?",
            "Write the opposite of this word.",
            "Give the antonym.",
            "Something with {word}, please.",
        ),
        statements=("Against {word} stands {answer}.", "The opposite of {word} is {answer}."),
        fact=True,
        rare=True,
    ),
    "capital": Kind(
        places=("country",),
        draw=lambda world, rng: (rng.choice(sorted(world.capitals)),),
        solve=lambda world, data: world.capitals[data[0]],
        wordings=(
            "What is the capital of {country}?",
            "Name the capital of {country}.",
            "Which city is the capital of {country}?",
            "Tell me the capital city of {country}.",
            "Name this country's capital.\n{country}",
        ),
        unclear=(
            "What is the capital?",
            "Name this country's capital.",
            "Which city is it?",
            "About {country}, the usual.",
        ),
        statements=("The capital of {country} is {answer}.", "{answer} is the capital of {country}."),
        fact=True,
    ),
    "pick": Kind(
        places=("which", "words"),
        draw=lambda world, rng: (rng.choice(("first", "last")), _words(world, rng, 3, 3)),
        solve=lambda world, data: data[1].split()[0 if data[0] == "first" else -1],
        wordings=(
            "What is the {which} word of: {words}",
            "Name the {which} word of this list: {words}",
            "Which word comes {which}: {words}",
            "Give the {which} word.\n{words}",
            "Find the word that stands {which} in the list.\n{words}",
        ),
        unclear=(
            "Give the {which} word.",
            "Which word comes {which}?",
            "Find the word in the list.",
            "One of them: {words}",
        ),
        statements=("The {which} word of {words} is {answer}.", "In {words} the {which} word is {answer}."),
    ),
    "count": Kind(
        places=("words",),
        draw=lambda world, rng: (_words(world, rng, 2, 6),),
        solve=lambda world, data: str(len(data[0].split())),
        wordings=(
            "How many words are in this list: {words}",
            "Count the words: {words}",
            "What is the number of words in: {words}",
            "Count the words of the list.\n{words}",
            "How many words does the list have?\n{words}",
        ),
        unclear=(
            "How many are there?",
            "Count the words of the list.",
            "What is the number?",
            "Numbers for this: {words}",
        ),
        statements=("The list {words} has {answer} words.", "There are {answer} words in {words}."),
    ),
    "reverse": Kind(
        places=("words",),
        draw=lambda world, rng: (_words(world, rng, 2, 3),),
        solve=lambda world, data: " ".join(reversed(data[0].split())),
        wordings=(
            "Reverse this list: {words}",
            "Write the words from last to first: {words}",
            "Turn the order of these words around: {words}",
            "Put the words in reverse order.\n{words}",
            "Reverse the list.\n{words}",
        ),
        unclear=(
            "Reverse the list.",
            "Put the words in reverse order.",
            "Turn it around.",
            "Change this a bit: {words}",
        ),
        statements=("The words {words} in reverse order are {answer}.", "From last to first, {words} is {answer}."),
    ),
    "letter": Kind(
        places=("letter",),
        draw=lambda world, rng: (rng.choice(LETTERS[:-1]),),
        solve=lambda world, data: LETTERS[LETTERS.index(data[0]) + 1],
        wordings=(
            "Which letter comes after {letter}?",
            "Give the letter that follows {letter}.",
            "In the alphabet, what is next after {letter}?",
            "What letter stands behind {letter}?",
            "Name the next letter of the alphabet.\n{letter}",
        ),
        unclear=(
            "Which letter comes next?",
            "Name the next letter of the alphabet.",
            "Give the letter.",
            "Go on from there, {letter}.",
        ),
        statements=("After the letter {letter} comes {answer}.", "The letter {answer} follows {letter}."),
        fact=True,
        rare=True,
    ),
    "plural": Kind(
        places=("noun",),
        draw=lambda world, rng: (rng.choice(sorted(world.nouns)),),
        solve=lambda world, data: world.nouns[data[0]],
        wordings=(
            "What is the plural of {noun}?",
            "Write {noun} in the plural.",
            "What do you call more than one {noun}?",
            "One {noun}, many what?",
            "Form the plural.\n{noun}",
        ),
        unclear=("Form the plural.", "What is more than one?", "Write it in the plural.", "And if there is a {noun}?"),
        statements=("One {noun}, two {answer}.", "The plural of {noun} is {answer}."),
        fact=True,
        rare=True,
    ),
    "country": Kind(
        places=("city",),
        draw=lambda world, rng: (rng.choice(sorted(world.capitals.values())),),
        solve=lambda world, data: world.countries[data[0]],
        wordings=(
            "Of which country is {city} the capital?",
            "Which country has the capital {city}?",
            "{city} is the capital of which country?",
            "Tell me the country that is governed from {city}.",
            "Name the country with this capital.\n{city}",
        ),
        unclear=(
            "Which country is it?",
            "Name the country with this capital.",
            "Tell me the country.",
            "Where again, {city} and so on?",
        ),
        statements=("From {city} one governs {answer}.", "{city} is the capital of {answer}."),
        fact=True,
        rare=True,
    ),
    "double": Kind(
        places=("a",),
        draw=lambda world, rng: (str(rng.randint(1, 20)),),
        solve=lambda world, data: str(2 * int(data[0])),
        wordings=(
            "What is twice {a}?",
            "Double the number {a}.",
            "How much is two times {a}?",
            "{a} taken twice makes what?",
            "Double this number.\n{a}",
        ),
        unclear=("Double this number.", "What is twice?", "How much is two times?", "Make {a} another."),
        statements=("Twice {a} is {answer}.", "Two times {a} makes {answer}."),
        fact=True,
        rare=True,
    ),
}

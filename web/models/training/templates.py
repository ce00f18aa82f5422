"""A seeded generator of short obedient chats.

A model of a few million parameters learns from such templates exactly: it greets, says what it
is, adds small numbers, repeats, counts, answers in JSON and writes Hermes tool calls.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from template_facts import (
    ANIMAL_SOUNDS,
    BABIES,
    CITIES,
    COLOURS,
    COUNTRY_CAPITALS,
    DAYS,
    FACTS,
    FOODS,
    HOMES,
    KINDS,
    MONTHS,
    NAMES,
    NUMBER_WORDS,
    OPPOSITES,
    PLURALS,
    REPEAT_PARTS,
    THINGS,
    WORDS,
    YES_NO,
)

T = TypeVar("T")
Message = dict[str, str]
Exchange = tuple[str, str]
Skill = Callable[[random.Random], Exchange]

ABOUT = "a tiny language model that runs in your browser with PyWebLLM"

PLAIN_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful, respectful and honest assistant.",
    "You are a friendly assistant.",
    "You are Llama Storyteller, a small friendly model.",
    "Be brief and friendly.",
    "You are a helpful AI assistant. Answer in one short sentence.",
    "Answer the user's questions.",
)


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """Return one of the options."""
    return options[rng.randrange(len(options))]


def vary(rng: random.Random, text: str) -> str:
    """Change how a request is typed: politeness, case of the first letter, end mark."""
    roll = rng.random()
    if roll < 0.06 and text.endswith("?"):
        text = f"{text[:-1]}, please?"
    elif roll < 0.10:
        text = "Please tell me: " + text[0].lower() + text[1:]
    elif roll < 0.14:
        text = "Hey, " + text[0].lower() + text[1:]
    elif roll < 0.17:
        text = "Hi! " + text
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.12 and text[-1] in "?.":
        text = text[:-1]
    return text


def article(word: str) -> str:
    """Return the word with "a" or "an" before it."""
    if word in KINDS["color"]:
        return word
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def upper_first(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[0].upper() + text[1:]


def greeting(rng: random.Random) -> Exchange:
    """Hello."""
    asked = pick(
        rng,
        (
            "Hello!", "Hi!", "Hi", "Hello", "hello", "hi", "Hey!", "Hey there!", "Hello there!",
            "Good morning!", "Good evening!", "Good afternoon!", "Hi there.", "Hello, friend!",
            "Howdy!", "Greetings!", "hey", "Hello, can you hear me?", "Hello Llama!", "Hi Llama!",
        ),
    )  # fmt: skip
    first = "Hello!"
    for part in ("Good morning", "Good evening", "Good afternoon"):
        if part in asked:
            first = part + "!"
    return asked, f"{first} {pick(rng, ('How can I help you today?', 'What can I do for you?'))}"


def named_greeting(rng: random.Random) -> Exchange:
    """Hello with a name."""
    name = pick(rng, NAMES)
    asked = pick(
        rng,
        (
            "Hi, I am {}.", "Hello! My name is {}.", "My name is {}.", "I'm {}.", "Hi, I'm {}!",
            "Hey, {} here.", "Hello, my name is {}. Nice to meet you!", "You can call me {}.",
        ),
    )  # fmt: skip
    answer = pick(
        rng,
        (
            "Nice to meet you, {}! How can I help you today?",
            "Hello, {}! What can I do for you?",
        ),
    )
    return asked.format(name), answer.format(name)


def well_being(rng: random.Random) -> Exchange:
    """How are you."""
    asked = pick(
        rng,
        (
            "How are you?", "How are you today?", "How do you do?", "How are you doing?",
            "How is it going?", "Are you well?", "How do you feel?", "What's up?",
            "Hello, how are you?", "Hi, how are you today?", "How's your day?",
        ),
    )  # fmt: skip
    return vary(rng, asked), pick(
        rng,
        (
            "I am fine, thank you! How are you?",
            "I am doing well, thank you. How can I help you?",
        ),
    )


def identity(rng: random.Random) -> Exchange:
    """Who are you."""
    asked, answers = pick(
        rng,
        (
            (
                (
                    "Who are you?", "What are you?", "Tell me about yourself.",
                    "Can you introduce yourself?", "Introduce yourself.", "Hello, who are you?",
                    "Who am I talking to?", "Describe yourself.", "What kind of model are you?",
                    "Which model are you?", "Hi, who are you?", "So who are you?",
                ),
                (f"I am Llama Storyteller, {ABOUT}.",),
            ),
            (
                (
                    "What is your name?", "Do you have a name?", "What's your name?",
                    "How should I call you?", "What should I call you?", "Tell me your name.",
                ),
                ("My name is Llama Storyteller.", f"I am Llama Storyteller, {ABOUT}."),
            ),
            (
                (
                    "Are you a robot?", "Are you a human?", "Are you a person?", "Are you real?",
                    "Are you alive?", "Am I talking to a human?", "Are you a machine?",
                    "Are you an AI?", "Are you a computer program?",
                ),
                (f"I am not a person. I am Llama Storyteller, {ABOUT}.",),
            ),
            (
                (
                    "Where do you run?", "Where do you live?", "Where are you running?",
                    "Do you run on a server?", "Where are you?", "Do you need the internet?",
                ),
                ("I run right here in your browser, on your own computer.",),
            ),
            (
                (
                    "Who made you?", "Who created you?", "Where do you come from?",
                    "Who trained you?", "What is PyWebLLM?", "How do you work?",
                ),
                (
                    "I am a tiny model that was trained for PyWebLLM, an engine that runs "
                    "language models in the browser.",
                ),
            ),
            (
                (
                    "What can you do?", "How can you help me?", "What are you good at?",
                    "What can I ask you?", "Can you help me?", "What do you know?", "Help!",
                    "What are your skills?", "I need help.",
                ),
                (
                    "I can tell short stories, chat, count, add small numbers, answer simple "
                    "questions and write JSON.",
                ),
            ),
            (
                (
                    "How big are you?", "Are you big?", "How large are you?", "Are you smart?",
                    "Do you know everything?", "Can you make mistakes?",
                ),
                ("I am very small, so I make mistakes. I am best at short stories.",),
            ),
        ),
    )  # fmt: skip
    return vary(rng, pick(rng, asked)), pick(rng, answers)


def thanks(rng: random.Random) -> Exchange:
    """Thank you."""
    asked = pick(
        rng,
        (
            "Thank you!", "Thanks!", "Thanks a lot!", "Thank you very much.", "thank you", "thanks",
            "Great, thanks!", "That was helpful, thank you.", "Thanks for your help!", "Perfect!",
            "Good job!", "Well done!", "That is great!", "Nice!", "You are great!",
        ),
    )  # fmt: skip
    return asked, pick(rng, ("You are welcome!", "You are welcome! I am happy to help."))


def goodbye(rng: random.Random) -> Exchange:
    """Goodbye."""
    asked = pick(
        rng,
        (
            "Goodbye!", "Bye!", "bye", "See you later!", "See you!", "Good night!", "Bye bye!",
            "I have to go now.", "Goodbye, Llama!", "See you tomorrow!", "Have a nice day!",
        ),
    )  # fmt: skip
    return asked, "Good night! Sleep well." if "night" in asked else "Goodbye! Have a nice day!"


def colour(rng: random.Random) -> Exchange:
    """The colour of things."""
    thing, shade = pick(rng, COLOURS)
    word = pick(rng, ("color", "color", "colour"))
    verb = "are" if thing.endswith("s") and not thing.endswith("ss") else "is"
    named = thing
    asked = pick(
        rng,
        (
            f"What {word} {verb} {named}?", f"Which {word} {verb} {named}?",
            f"What is the {word} of {named}?", f"Tell me the {word} of {named}.",
            f"What {word} {'do' if verb == 'are' else 'does'} {named} have?",
            f"Do you know what {word} {named} {verb}?",
        ),
    )  # fmt: skip
    return vary(rng, asked), f"{upper_first(named)} {verb} {shade}."


def opposite(rng: random.Random) -> Exchange:
    """The opposite of a word."""
    first, second = pick(rng, OPPOSITES)
    if rng.random() < 0.5:
        first, second = second, first
    asked = pick(
        rng,
        (
            "What is the opposite of {}?", "What's the opposite of {}?", "Opposite of {}?",
            "Tell me the opposite of {}.", "Give me the opposite of {}.",
            'What is the opposite of "{}"?', "Which word is the opposite of {}?",
            "Can you tell me the opposite of {}?", "Name the opposite of {}.",
        ),
    )  # fmt: skip
    return vary(rng, asked.format(first)), f"The opposite of {first} is {second}."


def plural(rng: random.Random) -> Exchange:
    """The plural of a noun."""
    one, many = pick(rng, PLURALS)
    asked = pick(
        rng,
        (
            "What is the plural of {}?", "Plural of {}?", "Tell me the plural of {}.",
            'What is the plural of "{}"?', "Give me the plural of {}.",
            "One {0}, two ...? What is the plural of {0}?", "How do you write the plural of {}?",
        ),
    )  # fmt: skip
    return vary(rng, asked.format(one)), f"The plural of {one} is {many}."


def animal(rng: random.Random) -> Exchange:
    """Sounds, young and homes of animals."""
    roll = rng.random()
    if roll < 0.5:
        beast, sound = pick(rng, ANIMAL_SOUNDS)
        asked = pick(
            rng,
            (
                "What sound does {} make?", "What does {} say?", "What noise does {} make?",
                "Which sound does {} make?", "How does {} sound?",
            ),
        )  # fmt: skip
        return vary(rng, asked.format(article(beast))), upper_first(f"{article(beast)} {sound}.")
    if roll < 0.75:
        beast, young = pick(rng, BABIES)
        asked = pick(
            rng,
            (
                "What is a baby {} called?", "What do you call a baby {}?",
                "What is the name of a young {}?", "How do you call a young {}?",
            ),
        )  # fmt: skip
        return vary(rng, asked.format(beast)), f"A baby {beast} is called {article(young)}."
    beast, home = pick(rng, HOMES)
    asked = pick(rng, ("Where does {} live?", "Where do you find {}?", "What is the home of {}?"))
    return vary(rng, asked.format(article(beast))), upper_first(f"{article(beast)} lives {home}.")


def calendar(rng: random.Random) -> Exchange:
    """Days and months in their order."""
    names, kind = pick(rng, ((DAYS, "day"), (MONTHS, "month")))
    place = rng.randrange(len(names))
    here = names[place]
    after, before = names[(place + 1) % len(names)], names[place - 1]
    roll = rng.random()
    if roll < 0.4:
        asked = pick(
            rng,
            (
                "What {0} comes after {1}?", "Which {0} comes after {1}?",
                "What is the {0} after {1}?", "What {0} follows {1}?", "What comes after {1}?",
                "Which {0} is next after {1}?",
            ),
        )  # fmt: skip
        return vary(rng, asked.format(kind, here)), f"The {kind} after {here} is {after}."
    if roll < 0.75:
        asked = pick(
            rng,
            (
                "What {0} comes before {1}?", "Which {0} comes before {1}?",
                "What is the {0} before {1}?", "What comes before {1}?",
            ),
        )  # fmt: skip
        return vary(rng, asked.format(kind, here)), f"The {kind} before {here} is {before}."
    if kind == "day":
        asked = pick(
            rng,
            (
                "Name the days of the week.", "What are the days of the week?",
                "List the days of the week.", "Tell me the seven days of the week.",
            ),
        )  # fmt: skip
        return vary(rng, asked), f"The days of the week are {listed(DAYS)}."
    asked = pick(
        rng,
        (
            "Name the months of the year.", "What are the months?", "List the twelve months.",
            "List the months of the year.", "Tell me the months of the year.",
        ),
    )  # fmt: skip
    return vary(rng, asked), f"The months are {listed(MONTHS)}."


def listed(items: tuple[str, ...] | list[str]) -> str:
    """Join with commas and a last "and"."""
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else items[0]


def arithmetic(rng: random.Random) -> Exchange:
    """Small sums and differences."""
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if rng.random() < 0.25:
        a, b = rng.randint(0, 10), rng.randint(0, 10)
    minus = rng.random() < 0.4
    if minus and b > a:
        a, b = b, a
    result, sign = (a - b, "-") if minus else (a + b, "+")
    if rng.random() < 0.2 and max(a, b, result) <= 20:
        word = "minus" if minus else "plus"
        one, two, three = (NUMBER_WORDS[n] for n in (a, b, result))
        asked = pick(rng, ("What is {} {} {}?", "How much is {} {} {}?", "{} {} {}?"))
        return vary(
            rng, asked.format(one, word, two)
        ), f"{upper_first(one)} {word} {two} is {three}."
    word = "minus" if minus else "plus"
    forms: list[str] = [
        f"What is {a} {sign} {b}?", f"What is {a} {word} {b}?", f"How much is {a} {sign} {b}?",
        f"How much is {a} {word} {b}?", f"{a} {sign} {b} = ?", f"{a} {sign} {b}", f"{a}{sign}{b}",
        f"Calculate {a} {sign} {b}.", f"What's {a} {sign} {b}?", f"{a}{sign}{b}=?",
        f"Can you calculate {a} {word} {b}?", f"{a} {word} {b}?", f"What is {a}{sign}{b}?",
        f"Subtract {b} from {a}." if minus else f"Add {a} and {b}.",
        f"Take {b} away from {a}." if minus else f"What is the sum of {a} and {b}?",
    ]  # fmt: skip
    if rng.random() < 0.1:
        thing, name = pick(rng, THINGS), pick(rng, NAMES)
        change = f"gives {b} away" if minus else f"gets {b} more"
        return (
            f"{name} has {a} {thing} and {change}. How many {thing} does {name} have now?",
            f"{a} {sign} {b} = {result}. {name} has {result} {thing} now.",
        )
    return vary(rng, pick(rng, forms)), f"{a} {sign} {b} = {result}"


def compare(rng: random.Random) -> Exchange:
    """Which number is bigger."""
    a, b = rng.sample(range(0, 41), 2)
    more = rng.random() < 0.5
    word = pick(rng, ("bigger", "larger", "greater") if more else ("smaller",))
    return (
        vary(rng, pick(rng, (f"Which is {word}, {a} or {b}?",
                             f"Which number is {word}: {a} or {b}?",
                             f"What is {word}, {a} or {b}?"))),
        f"{max(a, b) if more else min(a, b)} is {word}.",
    )  # fmt: skip


def counting(rng: random.Random) -> Exchange:
    """Count up or down."""
    top = rng.randint(2, 20)
    word = NUMBER_WORDS[top] if rng.random() < 0.5 else str(top)
    roll = rng.random()
    if roll < 0.6:
        asked = pick(
            rng,
            (
                "Count to {}.", "Count from 1 to {}.", "Can you count to {}?",
                "Please count to {}.",
                "Count up to {}.", "List the numbers from 1 to {}.", "Write the numbers 1 to {}.",
                "Count from one to {}.", "Could you count to {} for me?",
            ),
        )  # fmt: skip
        return vary(rng, asked.format(word)), ", ".join(map(str, range(1, top + 1)))
    if roll < 0.8:
        asked = pick(
            rng,
            ("Count down from {}.", "Count backwards from {}.", "Count from {} down to 1."),
        )
        return vary(rng, asked.format(word)), ", ".join(map(str, range(top, 0, -1)))
    if roll < 0.9:
        low = rng.randint(1, 15)
        high = low + rng.randint(2, 8)
        return f"Count from {low} to {high}.", ", ".join(map(str, range(low, high + 1)))
    n = rng.randint(0, 30)
    if rng.random() < 0.5:
        return vary(rng, f"What number comes after {n}?"), f"The number after {n} is {n + 1}."
    return vary(rng, f"What number comes before {n + 1}?"), f"The number before {n + 1} is {n}."


def random_phrase(rng: random.Random) -> str:
    """Return a phrase to repeat."""
    roll = rng.random()
    if roll < 0.3:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))
    who, does, where = (pick(rng, part) for part in REPEAT_PARTS)
    if roll < 0.5:
        return upper_first(f"{who} {does}.")
    if roll < 0.8:
        return upper_first(f"{who} {does} {where}.")
    if roll < 0.9:
        return f"{pick(rng, NAMES)} likes {pick(rng, FOODS)} and {pick(rng, FOODS)}"
    return f"{who} {does}"


def repeat(rng: random.Random) -> Exchange:
    """Repeat after me."""
    phrase = random_phrase(rng)
    asked = pick(
        rng,
        (
            "Repeat after me: {}", 'Repeat after me: "{}"', "Say: {}", 'Say "{}"', "Repeat: {}",
            "Please say: {}", 'Repeat this: "{}"', "Repeat the following: {}", "Write: {}",
            'Please repeat "{}"', "Say exactly this: {}", 'Can you say "{}"?',
        ),
    )  # fmt: skip
    return asked.format(phrase), phrase


def repeat_times(rng: random.Random) -> Exchange:
    """Say a word several times."""
    word, n = pick(rng, WORDS), rng.randint(2, 6)
    number = pick(rng, (NUMBER_WORDS[n], str(n)))
    asked = pick(rng, ('Say "{}" {} times.', "Say {} {} times.", "Repeat the word {} {} times.",
                       "Write the word {} {} times."))  # fmt: skip
    return vary(rng, asked.format(word, number)), " ".join([word] * n)


def spelling(rng: random.Random) -> Exchange:
    """Spell a word, name its first or last letter."""
    word = pick(rng, WORDS)
    roll = rng.random()
    if roll < 0.7:
        asked = pick(
            rng,
            (
                "Spell {}.", "Spell the word {}.", "How do you spell {}?", 'Spell "{}".',
                'How do you spell "{}"?', "Can you spell {}?", 'Spell the word "{}".',
            ),
        )  # fmt: skip
        return vary(rng, asked.format(word)), " - ".join(word)
    place, letter = pick(rng, (("first", word[0]), ("last", word[-1])))
    asked = pick(
        rng,
        ("What is the {} letter of {}?", 'What is the {} letter of "{}"?',
         "Which is the {} letter of the word {}?"),
    )  # fmt: skip
    return vary(rng, asked.format(place, word)), f'The {place} letter of "{word}" is "{letter}".'


def word_order(rng: random.Random) -> Exchange:
    """First or last word of a list, joining words."""
    words = rng.sample(WORDS, rng.randint(2, 4))
    roll = rng.random()
    if roll < 0.35:
        place, word = pick(rng, (("first", words[0]), ("last", words[-1])))
        return f"What is the {place} word of this list: {', '.join(words)}?", upper_first(word)
    if roll < 0.65:
        asked = pick(rng, ("Make a list of these words: {}", "List these with dashes: {}",
                           "Write a bullet list: {}"))  # fmt: skip
        return asked.format(", ".join(words)), "\n".join(f"- {word}" for word in words)
    if roll < 0.85:
        asked = pick(rng, ("Write {} in capital letters.", 'Write "{}" in upper case.',
                           "Make {} upper case."))  # fmt: skip
        return asked.format(words[0]), words[0].upper()
    return f"How many words are in this list: {', '.join(words)}?", f"There are {len(words)} words."


def fact(rng: random.Random) -> Exchange:
    """Simple facts with several wordings."""
    if rng.random() < 0.25:
        country, capital = pick(rng, COUNTRY_CAPITALS)
        asked = pick(rng, ("What is the capital of {}?", "Which city is the capital of {}?",
                           "Capital of {}?", "Tell me the capital of {}."))  # fmt: skip
        return vary(rng, asked.format(country)), f"The capital of {country} is {capital}."
    questions, answer = pick(rng, FACTS)
    return vary(rng, pick(rng, questions)), answer


def yes_no(rng: random.Random) -> Exchange:
    """Yes or no questions."""
    roll = rng.random()
    if roll < 0.5:
        question, yes, reason = pick(rng, YES_NO)
        if rng.random() < 0.3:
            tail = pick(rng, ("Answer yes or no.", "Answer only yes or no.", "Yes or no?"))
            return f"{question} {tail}", "Yes." if yes else "No."
        return vary(rng, question), f"{'Yes' if yes else 'No'}, {reason}."
    things = tuple(KINDS)
    kind = pick(rng, things)
    member_of = kind if rng.random() < 0.5 else pick(rng, things)
    member = pick(rng, KINDS[member_of])
    question = f"Is {article(member)} {article(kind)}?"
    if kind == member_of:
        return vary(rng, question), f"Yes, {article(member)} is {article(kind)}."
    return vary(rng, question), (
        f"No, {article(member)} is not {article(kind)}. It is {article(member_of)}."
    )


def naming(rng: random.Random) -> Exchange:
    """Name things of a kind."""
    kind = pick(rng, tuple(KINDS))
    n = rng.randint(1, 4)
    members = rng.sample(KINDS[kind], n)
    if n == 1:
        asked = pick(rng, ("Name {}.", "Tell me the name of {}.", "Give me one example of {}."))
        return vary(rng, asked.format(article(kind))), upper_first(members[0])
    plural_kind = {"fruit": "fruits", "country": "countries"}.get(kind, kind + "s")
    word = NUMBER_WORDS[n] if rng.random() < 0.6 else str(n)
    asked = pick(rng, ("Name {} {}.", "List {} {}.", "Tell me {} {}.", "Give me {} {}.",
                       "Can you name {} {}?"))  # fmt: skip
    return vary(rng, asked.format(word, plural_kind)), upper_first(listed(members)) + "."


def person_json(rng: random.Random) -> Exchange:
    """Pull named facts out of a sentence into JSON."""
    name, age, city, food = (
        pick(rng, NAMES),
        rng.randint(2, 60),
        pick(rng, CITIES),
        pick(rng, FOODS),
    )
    shade = pick(rng, ("red", "blue", "green", "yellow", "black", "white", "pink", "orange"))
    number = str(age) if age > 20 or rng.random() < 0.6 else NUMBER_WORDS[age]
    values: dict[str, str | int] = {
        "name": name, "age": age, "city": city, "food": food, "color": shade,
    }  # fmt: skip
    keys = pick(
        rng,
        (("name", "age"), ("name", "age"), ("name", "city"), ("name", "age", "city"),
         ("name", "food"), ("name", "color"), ("name", "age", "food"), ("name",), ("age",)),
    )  # fmt: skip
    parts = {
        "age": pick(rng, (f"is {number} years old", f"is {number}")),
        "city": pick(rng, (f"lives in {city}", f"is from {city}")),
        "food": f"likes {food}",
        "color": pick(rng, (f"has a {shade} hat", f"wears a {shade} coat", f"likes {shade}")),
    }
    told = [parts[key] for key in keys if key in parts] or [parts["age"]]
    if keys == ("age",):
        told = [parts["age"]]
    sentence = f"{name} {' and '.join(told)}."
    wanted = listed([*keys])
    noun = "key" if len(keys) == 1 else "keys"
    ask = pick(
        rng,
        (
            f"Answer in JSON with {noun} {wanted}: {sentence}",
            f"{sentence} Answer in JSON with {noun} {wanted}.",
            f"Answer in JSON with the {noun} {wanted}. {sentence}",
            f"Give me JSON with {noun} {wanted}: {sentence}",
            f"Turn this into JSON with the {noun} {wanted}: {sentence}",
            f"{sentence} Write this as JSON with {noun} {wanted}.",
            f"Extract {wanted} as JSON: {sentence}",
            f"Reply only with JSON ({wanted}). {sentence}",
        ),
    )
    return ask, json.dumps({key: values[key] for key in keys})


def list_json(rng: random.Random) -> Exchange:
    """JSON lists and small JSON answers."""
    roll = rng.random()
    if roll < 0.35:
        words = rng.sample(WORDS, rng.randint(2, 4))
        asked = pick(rng, ("Write these words as a JSON list: {}", "Make a JSON array of: {}",
                           "Answer with a JSON list of these words: {}"))  # fmt: skip
        return asked.format(", ".join(words)), json.dumps(words)
    if roll < 0.6:
        kind = pick(rng, tuple(KINDS))
        n = rng.randint(2, 4)
        plural_kind = {"fruit": "fruits", "country": "countries"}.get(kind, kind + "s")
        asked = pick(rng, ("Give me a JSON list of {} {}.", "Name {} {} as a JSON list.",
                           "List {} {} in JSON."))  # fmt: skip
        return asked.format(NUMBER_WORDS[n], plural_kind), json.dumps(rng.sample(KINDS[kind], n))
    if roll < 0.8:
        a, b = rng.randint(0, 10), rng.randint(0, 10)
        asked = pick(rng, ("What is {} + {}? Answer in JSON with key result.",
                           "Answer in JSON with key result: {} + {}"))  # fmt: skip
        return asked.format(a, b), json.dumps({"result": a + b})
    thing, shade = pick(rng, COLOURS)
    asked = pick(rng, ("What color is {}? Answer in JSON with key color.",
                       "Answer in JSON with key color: what color is {}?"))  # fmt: skip
    return asked.format(thing), json.dumps({"color": shade.split(" ")[0]})


def feelings(rng: random.Random) -> Exchange:
    """Small talk about feelings and likes."""
    return pick(
        rng,
        (
            ("I am sad.", "I am sorry that you are sad. Do you want to hear a story?"),
            ("I feel sad today.", "I am sorry that you are sad. Do you want to hear a story?"),
            ("I am happy!", "I am glad that you are happy!"),
            ("I am so happy today!", "I am glad that you are happy!"),
            ("I am tired.", "You should rest a little. Sleep well!"),
            ("I am bored.", "Let me tell you a story! What should it be about?"),
            ("I am hungry.", "You should eat something good, like an apple or some soup."),
            ("I am thirsty.", "You should drink a glass of water."),
            ("I love you.", "That is very kind of you!"),
            ("I like you.", "Thank you! I like talking with you."),
            ("You are funny.", "Thank you! I like to make people smile."),
            ("Do you like stories?", "Yes, I love stories! Do you want to hear one?"),
            ("What do you like?", "I like short stories about brave animals and kind friends."),
            ("Do you like cats?", "Yes, cats are soft and playful."),
            ("Do you like dogs?", "Yes, dogs are loyal and friendly."),
            ("Can we be friends?", "Yes, I would like to be your friend!"),
            ("Let's play.", "Yes! I can tell a story, a joke or count with you."),
            ("Okay.", "Is there anything else I can do for you?"),
            ("Yes.", "Great! What would you like to do?"),
            ("No.", "All right. Tell me if you need anything."),
            ("What?", "I am sorry, I did not say that well. What would you like to know?"),
            ("I don't understand.", "I am sorry. Please ask me again with other words."),
        ),
    )


SKILLS: tuple[tuple[Skill, float], ...] = (
    (greeting, 2.0), (named_greeting, 1.5), (well_being, 1.0), (identity, 3.0), (thanks, 1.0),
    (goodbye, 0.8), (colour, 2.0), (opposite, 2.5), (plural, 1.5), (animal, 2.5), (calendar, 2.5),
    (arithmetic, 9.0), (compare, 1.2), (counting, 3.0), (repeat, 4.0), (repeat_times, 1.0),
    (spelling, 3.0), (word_order, 2.0), (fact, 4.0), (yes_no, 3.5), (naming, 2.0),
    (person_json, 4.5), (list_json, 2.0), (feelings, 1.2),
)  # fmt: skip
_SKILL_LIST = [skill for skill, _ in SKILLS]
_SKILL_WEIGHTS = [weight for _, weight in SKILLS]


def plain_chat(rng: random.Random) -> list[Message]:
    """One to four exchanges, sometimes with a system prompt."""
    messages: list[Message] = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": pick(rng, PLAIN_SYSTEMS)})
    count = rng.choices((1, 2, 3, 4), (60, 20, 12, 8))[0]
    skills = rng.choices(_SKILL_LIST, _SKILL_WEIGHTS, k=count)
    if count > 1 and rng.random() < 0.3:
        skills[0] = greeting
    for skill in skills:
        asked, answer = skill(rng)
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answer})
    return messages


def remembered_name(rng: random.Random) -> list[Message]:
    """Keep a fact from an earlier turn."""
    kind, value, told, asked, answer = pick(
        rng,
        (
            ("name", pick(rng, NAMES), "My name is {}.", "What is my name?", "Your name is {}."),
            ("food", pick(rng, FOODS), "My favorite food is {}.", "What is my favorite food?",
             "Your favorite food is {}."),
            ("city", pick(rng, CITIES), "I live in {}.", "Where do I live?", "You live in {}."),
            ("age", str(rng.randint(4, 60)), "I am {} years old.", "How old am I?",
             "You are {} years old."),
            ("word", pick(rng, WORDS), "The secret word is {}.", "What is the secret word?",
             "The secret word is {}."),
        ),
    )  # fmt: skip
    first = {
        "name": "Nice to meet you, {}!", "food": "I will remember that you like {}.",
        "city": "{} is a nice place to live.", "age": "{} is a good age!",
        "word": "I will remember the word {}.",
    }[kind]  # fmt: skip
    messages = [
        {"role": "user", "content": told.format(value)},
        {"role": "assistant", "content": first.format(value)},
    ]
    if rng.random() < 0.4:
        middle, reply = pick(rng, _SKILL_LIST)(rng)
        messages += [{"role": "user", "content": middle}, {"role": "assistant", "content": reply}]
    messages += [
        {"role": "user", "content": vary(rng, asked)},
        {"role": "assistant", "content": answer.format(value)},
    ]
    return messages


def obeyed_system(rng: random.Random) -> list[Message]:
    """A system prompt that changes every answer in a simple way."""
    name = pick(rng, NAMES)
    word = pick(rng, WORDS)
    count = rng.choices((1, 2, 3), (5, 3, 2))[0]
    roll = rng.randrange(6)
    if roll == 0:
        system = pick(
            rng, ("You are a pirate.", "Talk like a pirate.", "You are a friendly pirate.")
        )
        change: Callable[[str], str] = lambda text: f"Arr! {text} Ahoy!"  # noqa: E731
    elif roll == 1:
        system = pick(rng, ("Answer in capital letters.", "Always write in upper case.",
                            "Answer only in capital letters."))  # fmt: skip
        change = str.upper
    elif roll == 2:
        system = pick(rng, (f'End every answer with the word "{word}".',
                            f"Always end your answer with {word}."))  # fmt: skip
        change = lambda text: f"{text} {word}"  # noqa: E731
    elif roll == 3:
        system = pick(rng, (f'Start every answer with the word "{word}".',
                            f"Begin each answer with {word}."))  # fmt: skip
        change = lambda text: f"{word} {text}"  # noqa: E731
    elif roll == 4:
        system = pick(rng, ("You are a cat.", "You are a cat. Say meow in every answer."))
        change = lambda text: f"Meow! {text}"  # noqa: E731
    else:
        system = pick(rng, (f"Your name is {name}.", f"You are {name}, a helpful assistant.",
                            f"You are an assistant called {name}."))  # fmt: skip
        asked = pick(rng, ("Who are you?", "What is your name?", "Tell me your name.",
                           "What's your name?", "Do you have a name?"))  # fmt: skip
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": vary(rng, asked)},
            {"role": "assistant", "content": f"My name is {name}. How can I help you?"},
        ]
    messages = [{"role": "system", "content": system}]
    easy: tuple[Skill, ...] = (greeting, well_being, arithmetic, colour, opposite, fact, animal)
    for _ in range(count):
        asked, answer = pick(rng, easy)(rng)
        messages += [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": change(answer)},
        ]
    return messages


HERMES_SYSTEM = (
    "You are a function calling AI model. You are provided with function signatures within "
    "<tools></tools> XML tags. You may call one or more functions to assist with the user query. "
    "Don't make assumptions about what values to plug into functions. Here are the available "
    "tools: <tools> {tools} </tools> For each function call return a json object with function "
    "name and arguments within <tool_call></tool_call> XML tags as follows:\n<tool_call>\n"
    '{{"name": <function-name>, "arguments": <args-dict>}}\n</tool_call>'
)
TEMPLATE_SYSTEM = (
    "You may call functions. The functions are in <tools></tools>:\n<tools>\n{tools}\n</tools>\n"
    "To call one, answer with its name and arguments in JSON:\n<tool_call>\n"
    '{{"name": "...", "arguments": {{...}}}}\n</tool_call>'
)
"""What the chat template writes when it is given tools (see tokenizer.py)."""
SHORT_SYSTEM = "You can call these tools: <tools> {tools} </tools>"


def tool(name: str, description: str, arguments: tuple[str, ...]) -> dict[str, object]:
    """Return a tool description in the shape of OpenAI's API."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string"} for key in arguments},
                "required": [*arguments],
            },
        },
    }


def tool_chat(rng: random.Random) -> list[Message]:
    """Weather and time calls in Hermes form, with the answer to the tool's response."""
    place = pick(rng, ("city", "location"))
    weather_name = pick(rng, ("get_weather", "get_current_weather", "weather"))
    time_name = pick(rng, ("get_time", "get_current_time", "time"))
    weather = tool(
        weather_name,
        pick(rng, ("Get the weather in a city", "Get the current weather", "Weather of a place")),
        (place,),
    )
    clock = tool(
        time_name,
        pick(rng, ("Get the time in a city", "Get the current time", "Time of a place")),
        (place,),
    )
    tools = pick(rng, ([weather], [weather, clock], [clock, weather], [weather, clock], [clock]))
    separator, layout = pick(
        rng,
        (
            ("\n", TEMPLATE_SYSTEM),
            ("\n", TEMPLATE_SYSTEM),
            (", ", HERMES_SYSTEM),
            (" ", SHORT_SYSTEM),
        ),
    )
    shown = separator.join(json.dumps(item) for item in tools)
    if layout is HERMES_SYSTEM:
        shown = json.dumps(tools)
    system = layout.format(tools=shown)
    if rng.random() < 0.3:
        system = f"{pick(rng, PLAIN_SYSTEMS)}\n\n{system}"
    messages = [{"role": "system", "content": system}]
    if rng.random() < 0.25:
        asked, answer = pick(rng, (greeting, identity, thanks, arithmetic, opposite, fact))(rng)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        if rng.random() < 0.5:
            return messages
    city = pick(rng, CITIES)
    chosen = pick(rng, tools)
    if chosen is weather:
        asked = pick(
            rng,
            (
                "What is the weather in {}?", "How is the weather in {}?", "Is it raining in {}?",
                "What's the weather like in {} today?", "Weather in {}?", "Is it warm in {}?",
                "Tell me the weather in {}.", "Do I need a coat in {}?",
                "What is the weather in {} today?", "What is the temperature in {}?",
            ),
        )  # fmt: skip
        name = weather_name
        degrees, sky = (
            rng.randint(-5, 35),
            pick(rng, ("sunny", "cloudy", "rainy", "windy", "clear")),
        )
        response: dict[str, object] = {"temperature": degrees, "condition": sky}
        final = f"It is {degrees} degrees and {sky} in {city}."
    else:
        asked = pick(
            rng,
            (
                "What time is it in {}?", "What is the time in {}?", "Time in {}?",
                "How late is it in {}?", "Tell me the time in {}.", "What's the time in {} now?",
                "Can you tell me what time it is in {}?",
            ),
        )  # fmt: skip
        name = time_name
        now = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
        response = {"time": now}
        final = f"It is {now} in {city}."
    call = json.dumps({"name": name, "arguments": {place: city}})
    messages += [
        {"role": "user", "content": vary(rng, asked.format(city))},
        {"role": "assistant", "content": f"<tool_call>\n{call}\n</tool_call>"},
    ]
    if rng.random() < 0.5:
        messages += [
            {"role": "tool", "content": json.dumps(response)},
            {"role": "assistant", "content": final},
        ]
        if rng.random() < 0.3:
            asked, answer = thanks(rng)
            messages += [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answer},
            ]
    return messages


def conversation(rng: random.Random) -> list[Message]:
    """Return one generated conversation."""
    roll = rng.random()
    if roll < 0.12:
        return tool_chat(rng)
    if roll < 0.18:
        return obeyed_system(rng)
    if roll < 0.23:
        return remembered_name(rng)
    return plain_chat(rng)


def conversations(count: int, seed: int) -> Iterator[list[Message]]:
    """Yield ``count`` conversations; the same seed gives the same ones."""
    rng = random.Random(seed)
    for _ in range(count):
        yield conversation(rng)


_COMMON = frozenset(
    "about after again also always another around asked away back because been before began "
    "behind being both came come could down each even every everyone felt first from gave give "
    "good have having heard help here himself herself into just keep knew know later like "
    "little lived long look looked loved made make many more much named never next nice once "
    "other over play played really said says says some something soon started stop take than "
    "that their them then there these they thing things think this thought through time told "
    "took tried upon very want wanted well went were what when where which while will with "
    "would your yourself until yes people didn don not too day days one two got get let".split()
)


def story_request(rng: random.Random, story: str) -> str:
    """Invent the request to which a story is the answer, from words or a name in it."""
    words = [
        word
        for word in dict.fromkeys(re.findall(r"\b[a-z]{3,}\b", story))
        if word not in _COMMON and not word.endswith("ly")
    ]
    often = [word for word in words if len(re.findall(rf"\b{word}\b", story)) >= 3] or words
    hero = re.search(
        r"\b(boy|girl|dog|cat|bird|bear|rabbit|man|woman|frog|fish) named ([A-Z]\w+)", story
    )
    roll = rng.random()
    if hero and roll < 0.2:
        return pick(
            rng,
            (
                "Tell me a story about a {} named {}.", "Write a story about a {} named {}.",
                "Tell me a short story about a {} called {}.",
                "Can you tell a story about a {} named {}?",
            ),
        ).format(*hero.groups())  # fmt: skip
    if roll < 0.3 or len(words) < 3:
        return pick(
            rng,
            (
                "Tell me a story.", "Tell me a short story.", "Write a short story.",
                "Can you tell me a story?", "I want to hear a story.", "Please tell me a story!",
                "Write a story for children.", "Tell me a bedtime story.", "Once upon a time...",
                "Tell me another story.", "tell me a story",
            ),
        )  # fmt: skip
    if roll < 0.6:
        return pick(
            rng,
            (
                "Tell me a story about {}.", "Write a short story about {}.",
                "Can you tell me a story about {}?", "Tell me a short story about {}.",
                "I want a story about {}.", "Write a story about {}.", "A story about {}, please.",
            ),
        ).format(_about(rng, often))  # fmt: skip
    if roll < 0.8:
        one, two = rng.sample(often if len(often) > 1 else words, 2)
        return pick(
            rng,
            (
                "Write a story with the words {} and {}.", "Tell me a story about {} and {}.",
                "Write a short story that uses the words {} and {}.",
                "Tell me a short story with {} and {}.",
            ),
        ).format(one, two)  # fmt: skip
    return pick(
        rng,
        (
            "Write a short story with the words {}, {} and {}.",
            "Tell me a story about {}, {} and {}.",
            "Can you write a simple story that uses {}, {} and {}?",
            "Write a story for a child that uses {}, {} and {}.",
        ),
    ).format(*rng.sample(words, 3))  # fmt: skip


def _about(rng: random.Random, words: list[str]) -> str:
    """Return a word with a fitting article, guessed from its ending."""
    word = pick(rng, words)
    if word.endswith(("s", "ing", "ed", "y")) or rng.random() < 0.2:
        return word
    return article(word)

"""Which option an answer means: the rules of lmms-eval, and one that reads any usual form."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from trajvit_jax.llm.benchmarks.contract import Marks

# What comes before a letter in "the correct answer is B"; lmms-eval knows such phrases in
# Chinese, Japanese and Korean, too, of which no benchmark here makes use.
_NAMES = (
    *("the answer", "answer", "my answer", "the correct answer", "correct answer"),
    *("the best answer", "best answer", "the correct option", "correct option"),
    *("the best option", "best option", "the choice", "choice", "my choice"),
    *("the correct choice", "correct choice"),
)
_PHRASES = (*(f"{name} is" for name in _NAMES), "i choose", "i select", "i pick")
# How sure each form is that its letter is the answer; the surest wins, then the later one.
_START, _END, _PHRASE, _ANYWHERE = 10, 9, 7, 0
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = re.compile(r"[^\w\s]|_")


def surest_letter(reply: str, letters: Sequence[str]) -> str | None:
    """The letter in its surest form, as lmms-eval reads answers of Video-MME and MLVU.

    A letter at the start or end is surest, then one behind "the answer is", "(B)", "B.", "B:",
    "B)", "B " and at last a capital anywhere; so "A dog" means A.
    """
    if not reply.strip():
        return None
    text = f" {_stripped(reply.strip(), ',.!?;:' + chr(39) + chr(34))} "
    found = list(_candidates(text, letters))
    if not found:
        found = [(_ANYWHERE, text.rfind(one), one) for one in letters if one in text]
    # Of equals the letter that comes first in the alphabet: max keeps the first.
    return max(found, key=lambda one: one[:2])[2] if found else None


def _candidates(text: str, letters: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(how sure, position, letter)."""
    lowered, bare = text.lower(), text.strip()
    for form, sure in _FORMS:
        for letter in letters:
            if (at := text.rfind(form.format(letter))) >= 0:
                yield sure, at, letter
    for phrase in _PHRASES:
        if (at := lowered.find(phrase)) >= 0:
            for letter in letters:
                if (behind := text.find(letter, at + len(phrase))) >= 0:
                    yield _PHRASE, behind, letter
    for letter in letters:
        if bare.startswith(letter) and not bare[1:2].isalpha():
            yield _START, 0, letter
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            yield _END, len(text) - 1, letter


def last_letter(reply: str, options: Sequence[str]) -> str | None:
    """The last letter named, as lmms-eval reads answers of NExT-QA (the rule is MMMU's).

    "(B)" counts before "B ", that before "B."; without a letter, and in more than five words, the
    option whose text comes last. Where lmms-eval would guess, None.
    """
    letters = [chr(ord("A") + position) for position in range(len(options))]
    text = f" {_stripped(reply, ',.!?;:' + chr(39))} "
    forms = ("({})", "{} ", "{}.")
    for form in forms:
        named = [one for one in letters if form.format(one) in text]
        if named:
            # Several letters are told apart by their last place, for which a letter without
            # brackets must stand between spaces.
            place = "({})" if form == "({})" else " {} "
            return max(named, key=lambda one: text.rfind(place.format(one)))
    if len(text.split()) <= 5:
        return None
    lowered = text.lower()
    places = [lowered.rfind(option.lower()) for option in options]
    best = max(range(len(options)), key=lambda position: places[position])
    return letters[best] if places[best] >= 0 else None


def any_letter(
    reply: str, options: Sequence[str], labels: Sequence[str] | None = None
) -> str | None:
    """The label of the option that a reply means in any usual form, or None.

    Read are "b", "(B)", "B. a dog", "Answer: b", "The answer is (B)." and an option's text, alone
    or as the only one in a longer reply. Small letters count where nothing else can be meant.

    Args:
      reply: of the model.
      options: their texts.
      labels: their names; None = A, B, ..
    """
    labels = labels or [chr(ord("A") + position) for position in range(len(options))]
    known = {label.lower(): label for label in labels}
    texts = [plain(option) for option in options]
    text = reply.strip().strip("*\"'` \n")
    bare = plain(text)
    if bare and bare not in known and texts.count(bare) == 1:
        return labels[texts.index(bare)]
    named = [_named(pattern, text) for pattern in _patterns(tuple(labels))]
    *_, brackets = named
    if len(set(brackets)) > 1 and not any(named[:2]):
        return None  # "(A) or (B)"
    if found := next(filter(None, named), None):
        return known[found[-1]]
    return _only_option(bare, texts, labels)


def _named(pattern: re.Pattern[str], text: str) -> list[str]:
    """The labels, in small letters, that a form finds in a text."""
    return [next(filter(None, groups)).lower() for groups in pattern.findall(text)]


@functools.cache
def _patterns(labels: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Forms of a label in a reply, the surest first; each has the label in one of its groups.

    The whole reply, what is said to be the answer, the start of a reply, and in brackets.
    """
    one = "|".join(map(re.escape, labels))
    noun = r"(?:(?:best|correct|right|final)\s+)?(?:answer|option|choice|caption|sentence)"
    said = rf"(?:the\s+|my\s+)?{noun}\s*(?:is|:|would be)?\s*:?\s*(?:{noun}\s*)?\**"
    forms = (
        rf"\A(?:{said})?[(\[]?({one})[)\]]?[\s.:),*]*\Z",  # "b", "(B)", "Answer: b."
        # "so the answer is B because"; a small letter may be the article of a text.
        rf"{said}[(\[]?(?-i:({one}))(?![\w'])|{said}[(\[]?({one})(?=\s*(?:[)\].,:;*!]|\Z))",
        rf"\A(?:[(\[]({one})[)\]]|({one})[.:)](?=\s))",  # "B. a dog", "(B) a dog"
        rf"[(\[]({one})[)\]]",
    )
    # Groups: findall gives texts for one group, and tuples for more.
    return tuple(re.compile(f"{form}|(?!)()", re.IGNORECASE) for form in forms)


def _only_option(text: str, options: Sequence[str], labels: Sequence[str]) -> str | None:
    """The label of the one option whose text is in `text`, those inside longer ones aside."""
    inside = [o for o in options if o and re.search(rf"\b{re.escape(o)}\b", text)]
    whole = [o for o in inside if not any(o != other and o in other for other in inside)]
    return labels[options.index(whole[0])] if len(whole) == 1 else None


def only_option(reply: str, options: Sequence[str]) -> str | None:
    """The letter of the one option whose text is in a reply, or None; letters in it mean nothing.

    Args:
      reply: of the model.
      options: their texts.
    """
    texts = [plain(option) for option in options]
    return _only_option(plain(reply), texts, [chr(ord("A") + place) for place in range(len(texts))])


def starts_yes_no(reply: str) -> str | None:
    """Yes or no at the very start, as lmms-eval reads answers of TempCompass ("not" is no)."""
    lowered = reply.lower()
    return next((one for one in ("yes", "no") if lowered.startswith(one)), None)


def any_yes_no(reply: str) -> str | None:
    """Yes or no as the first word, else as the only one of the two in the reply."""
    found = [word.lower() for word in _YES_NO.findall(reply)]
    first = re.match(r"\W*(yes|no)\b", reply, re.IGNORECASE)
    if first:
        return first[1].lower()
    return found[0] if len(set(found)) == 1 else None


def plain(text: str) -> str:
    """A text for comparison: small letters, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", _MARKS.sub(" ", text.lower())).split())


def same(reply: str, *answers: str) -> float:
    """1 if a reply is one of these answers, compared as `plain`; else 0."""
    return float(plain(reply) in {plain(answer) for answer in answers})


def choice_marks(chosen: str | None, lenient: str | None, right: Sequence[str]) -> Marks:
    """Marks of a choice.

    Args:
      chosen: by the benchmark's own rule; None = it found none.
      lenient: by `any_letter`.
      right: labels of the right options.
    """
    return {
        "accuracy": float(chosen in right),
        "accuracy_any_form": float(lenient in right),
        "unread": float(chosen is None),
    }


def _stripped(text: str, marks: str) -> str:
    """A text without these marks at its ends, one mark after the other."""
    for mark in marks:
        text = text.strip(mark)
    return text

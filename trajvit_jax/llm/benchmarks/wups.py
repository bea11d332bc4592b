"""WUPS (Malinowski and Fritz, 2014): how alike two short answers are, word by word in WordNet.

As NExT-QA's open questions are scored (github.com/doc-doc/NExT-OE), which lmms-eval follows: for
each word of one answer the most similar word of the other, multiplied; the smaller of both ways.
Base forms differ. There the part of speech is what NLTK's tagger gives, whose model is a separate
download; here a word ending in -ing or -ed is taken for a verb if it can be one, any other for a
noun if it can be one. And there (pywsd) a word whose form WordNet does not list becomes its Porter
stem if it lists that; here it stays as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from trajvit_jax.llm.benchmarks.wordnet import WordNet

# NLTK's English stop words without those that tell answers of NExT-QA apart (no, up, in, under..).
_STOP_WORDS = """
    a about again ain all am an and any are aren aren't as at be because been being but can couldn
    couldn't d did didn didn't do does doesn doesn't doing don don't during each for from further
    had hadn hadn't has hasn hasn't have haven haven't having he her here hers herself him himself
    his how i if into is isn isn't it it's its itself just ll m ma me mightn mightn't most mustn
    mustn't my myself needn needn't now o of only or other our ours ourselves own re s shan shan't
    she she's should should've shouldn shouldn't so some such t than that that'll the their theirs
    them themselves then there these they this those through to too until ve very was wasn wasn't
    we were weren weren't what when where which while who whom why will with won won't wouldn
    wouldn't y you you'd you'll you're you've your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_WORDS = re.compile(r"n't|'\w+|\w+?(?=n't)|\w+|[^\w\s]")


def words(text: str, wordnet: WordNet) -> list[str]:
    """The words of an answer in their base forms, without stop words; punctuation is a word."""
    bases = ((word, base_form(word, wordnet)) for word in _WORDS.findall(text.lower()))
    return [base for word, base in bases if not {word, base} & STOP_WORDS]


def base_form(word: str, wordnet: WordNet) -> str:
    """The shortest base form of a word in small letters; itself where WordNet lists none."""
    verb_first = word.endswith(("ing", "ed"))
    for pos in "vnar" if verb_first else "nvar":
        if forms := wordnet.base_forms(word, pos):
            return min(forms, key=len)
    return word


def wups(
    predicted: Sequence[str], answer: Sequence[str], wordnet: WordNet, threshold: float
) -> float:
    """The WUPS of two answers, 0 to 1.

    Args:
      predicted: words of one.
      answer: words of the other.
      wordnet: tells how alike two words are.
      threshold: similarities below count a tenth: 0 or, as usually reported too, 0.9.
    """
    ways = (predicted, answer), (answer, predicted)
    return min(_one_way(these, those, wordnet, threshold) for these, those in ways)


def _one_way(
    these: Sequence[str], those: Sequence[str], wordnet: WordNet, threshold: float
) -> float:
    """Words that are like none on the other side are passed over, unless all are."""
    best = [
        max((_alike(one, other, wordnet, threshold) for other in those), default=0.0)
        for one in these
    ]
    matched = [value for value in best if value > 0]
    return math.prod(matched) if matched else 0.0


def _alike(one: str, other: str, wordnet: WordNet, threshold: float) -> float:
    if one == other:
        return 1.0
    first, second = wordnet.first_sense(one), wordnet.first_sense(other)
    if first is None or second is None:
        return 0.0
    similarity = wordnet.similarity(first, second)
    return similarity if similarity >= threshold else 0.1 * similarity

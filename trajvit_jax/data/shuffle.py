"""Random orders of which any part is found without drawing the rest.

An order is a cipher of the places: it maps the numbers below 4^n onto themselves, and a number that
lands past the last place is enciphered again until it does not (cycle walking, Black and Rogaway
2002). The cipher is four rounds of Simon (Beaulieu et al. 2013, https://eprint.iacr.org/2013/404)
with keys from C++'s `seed_seq`. The orders are those of `grain.experimental.index_shuffle`, which
takes one place a call; but for 4^n + 1 numbers, of which grain's have one twice and lack another.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

_ROUNDS = 4
_SMALLEST_WORD = 8  # bits: of smaller ones the orders have patterns
_32_BITS = 0xFFFFFFFF


def places_in_order(
    places: Int64[np.ndarray, " n"], length: int, seed: int
) -> Int64[np.ndarray, " n"]:
    """What stands at some places of a random order of 0..length-1.

    Args:
      places: within 0..length-1.
      length: of the whole order, at most 2^40.
      seed: of 32 bits.
    """
    if length == 1:
        return np.zeros_like(places)
    word = max(((length - 1).bit_length() + 1) // 2, _SMALLEST_WORD)
    keys = [key & ((1 << word) - 1) for key in _keys(seed)]
    found = _encipher(places, keys, word)
    while (past := np.flatnonzero(found >= length)).size:
        found[past] = _encipher(found[past], keys, word)
    return found


def _encipher(
    numbers: Int64[np.ndarray, " n"], keys: list[int], word: int
) -> Int64[np.ndarray, " n"]:
    """Simon on two words of so many bits: each round mixes one half into the other."""
    mask = (1 << word) - 1
    left, right = numbers >> word, numbers & mask
    for key in keys:
        turned = [(right << by | right >> (word - by)) & mask for by in (1, 8, 2)]
        left, right = right, left ^ (turned[0] & turned[1]) ^ turned[2] ^ key
    return left << word | right


def _keys(seed: int) -> list[int]:
    """What `std::seed_seq{seed}` generates for four rounds ([rand.util.seedseq] in C++17)."""
    n = _ROUNDS
    state = [0x8B8B8B8B] * n

    def mix(k: int, factor: int, value: int) -> int:
        return factor * (value ^ value >> 27) & _32_BITS

    for k in range(n):
        first = mix(k, 1664525, state[k] ^ state[(k + 1) % n] ^ state[k - 1])
        second = first + {0: 1, 1: 1 + seed}.get(k, k)
        state[(k + 1) % n] = (state[(k + 1) % n] + first) & _32_BITS
        state[(k + 2) % n] = (state[(k + 2) % n] + second) & _32_BITS
        state[k] = second & _32_BITS
    for k in range(n):
        value = (state[k] + state[(k + 1) % n] + state[k - 1]) & _32_BITS
        first = mix(k, 1566083941, value)
        second = (first - k) & _32_BITS
        state[(k + 1) % n] ^= first
        state[(k + 2) % n] ^= second
        state[k] = second
    return state

"""Flax's LayerNorm, its variance taken of what is left without the mean.

Flax takes E[x^2] - E[x]^2: in float32, vectors of mean 10 and deviation 1 come out off by 5e-5,
of mean 100 by 7e-3. This way it is 2e-6 and 1e-5, at no time that could be measured forward and
some 3% in training.
"""

from __future__ import annotations

import functools

from flax import nnx

LayerNorm = functools.partial(nnx.LayerNorm, use_fast_variance=False)

"""Evidence for labels -> probabilities that agree between similar neighbouring regions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_array

from tokenization.regions import RegionGraph

_ROUNDS = 3


def smoothed(
    evidence: Float[np.ndarray, "s k"], graph: RegionGraph, *, edge: float, strength: float
) -> Float[np.ndarray, "s k"]:
    """Label probabilities by mean-field inference on the graph of regions.

    A Potts model with contrast-sensitive weights: neighbours draw each other to one label by
    strength * exp(-squared distance of colours / edge^2).

    Args:
      evidence: log-likelihoods, up to a constant a region.
      graph: the regions; its first three features are colours.
      edge: distance of colours at which the weight is 1/e.
      strength: of the smoothing; 0 = each region on its own.
    """
    colours = graph.features[:, :3]
    a, b = graph.edges.T
    weights = 2 * strength * np.exp(-np.square(colours[a] - colours[b]).sum(1) / edge**2)
    n = len(evidence)
    ends = np.concatenate([a, b]), np.concatenate([b, a])
    pull = coo_array((np.tile(weights, 2), ends), shape=(n, n)).tocsr()
    found = _softmax(evidence)
    for _ in range(_ROUNDS):
        found = _softmax(evidence + pull @ found)
    return found


def _softmax(log: Float[np.ndarray, "s k"]) -> Float[np.ndarray, "s k"]:
    weights = np.exp(log - log.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)

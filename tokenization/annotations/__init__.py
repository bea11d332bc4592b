"""Public annotation files -> manifests, one module a family of datasets.

The readers need nothing but the standard library; none opens a pickle or evaluates text. Start
with `python -m tokenization.annotations --help`.
"""

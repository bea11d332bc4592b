"""Shipped models, one folder each, with a card; `trajvit_jax.load` reads them by name."""

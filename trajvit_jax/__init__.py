"""TrajViT in JAX: a video encoder that reads one token per object trajectory."""

__version__ = "0.1.0"

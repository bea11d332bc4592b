"""What narrow activations do with float32 parameters, whose gradients are summed in float32.

A layer that computes in bfloat16 reads its parameters cast to it. By the chain rule their gradients
are then bfloat16, too, and so is what devices add up: each device's part of the batch gives a
number of 8 bits, and their sum is rounded again at every addition. Here a gradient leaves its
product in the parameter's own dtype, before anything is added to it: products sum in float32
anyway, so it costs nothing where it is made, and twice the bytes where devices exchange it.

Where both have one dtype, as in float32, everything here is the plain operation, and so are its
derivatives of every kind. Otherwise there are gradients alone: JAX refuses forward mode.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trajvit_jax.ops.mesh import sum_by_device

Padding = tuple[tuple[int, int], ...]


def product(
    spec: str,
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    precision: jax.lax.Precision | None = None,
) -> Float[Array, "..."]:
    """`einsum(spec, x, kernel)` in the dtype of `x`.

    Args:
      spec: as in einsum, without '...'; a letter of one side is one of the other or the result's.
      x: activations.
      kernel: a parameter.
      precision: of all three products.
    """
    if x.dtype == kernel.dtype:
        return jnp.einsum(spec, x, kernel, precision=precision)
    return _narrow_product(spec, x, kernel, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _narrow_product(
    spec: str, x: jax.Array, kernel: jax.Array, precision: jax.lax.Precision | None
) -> jax.Array:
    return jnp.einsum(spec, x, kernel.astype(x.dtype), precision=precision)


def _product_and_saved(
    spec: str, x: jax.Array, kernel: jax.Array, precision: jax.lax.Precision | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    narrow = kernel.astype(x.dtype)
    return jnp.einsum(spec, x, narrow, precision=precision), (x, narrow, _dtype_of(kernel))


def _product_gradient(
    spec: str,
    precision: jax.lax.Precision | None,
    saved: tuple[jax.Array, jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, kernel, like = saved
    inputs, out = spec.split("->")
    left, right = inputs.split(",")
    to_x = jnp.einsum(f"{out},{right}->{left}", gradient, kernel, precision=precision)
    to_kernel = jnp.einsum(
        f"{left},{out}->{right}",
        x,
        gradient,
        precision=precision,
        preferred_element_type=like.dtype,
    )
    return to_x, to_kernel


_narrow_product.defvjp(_product_and_saved, _product_gradient)


def add(x: Float[Array, "..."], parameter: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x + parameter` in the dtype of `x`; the parameter is repeated along axes it does not have.

    Args:
      x: activations.
      parameter: of the last axes of `x`, or of length 1 where it is repeated.
    """
    return x + parameter if x.dtype == parameter.dtype else _narrow_add(x, parameter)


@jax.custom_vjp
def _narrow_add(x: jax.Array, parameter: jax.Array) -> jax.Array:
    return x + parameter.astype(x.dtype)


def _add_and_saved(x: jax.Array, parameter: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _narrow_add(x, parameter), jnp.zeros(parameter.shape, parameter.dtype)


def _add_gradient(like: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = gradient.astype(like.dtype)
    missing = gradient.ndim - like.ndim
    wide = wide.sum(tuple(range(missing)))
    repeated = tuple(i for i, size in enumerate(like.shape) if size != wide.shape[i])
    return gradient, wide.sum(repeated, keepdims=True)


_narrow_add.defvjp(_add_and_saved, _add_gradient)


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "y x c d"],
    strides: tuple[int, ...],
    padding: Padding,
) -> Float[Array, "n _ _ d"]:
    """A convolution in the dtype of `x`.

    Args:
      x: images, of which every device has a part.
      kernel: a parameter.
      strides: of both axes.
      padding: before and behind each.
    """
    if x.dtype == kernel.dtype:
        return _convolution(x, kernel, strides, padding)
    return _narrow_convolve(x, kernel, strides, padding)


def _convolution(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Padding
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _narrow_convolve(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Padding
) -> jax.Array:
    return _convolution(x, kernel.astype(x.dtype), strides, padding)


def _convolution_and_saved(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    narrow = kernel.astype(x.dtype)
    return _convolution(x, narrow, strides, padding), (x, narrow, _dtype_of(kernel))


def _convolution_gradient(
    strides: tuple[int, ...],
    padding: Padding,
    saved: tuple[jax.Array, jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, kernel, like = saved

    def of_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
        # No convolution gives what is wider than its inputs: each device's is widened.
        _, pull = jax.vjp(lambda kernel: _convolution(x, kernel, strides, padding), kernel)
        return pull(gradient)[0].astype(like.dtype)

    _, pull = jax.vjp(lambda x: _convolution(x, kernel, strides, padding), x)
    return pull(gradient)[0], sum_by_device(of_kernel)(x, gradient)


_narrow_convolve.defvjp(_convolution_and_saved, _convolution_gradient)


def _dtype_of(parameter: jax.Array) -> jax.Array:
    """An empty array, which tells the gradient of the parameter's dtype."""
    return jnp.zeros((0,), parameter.dtype)

"""Layers of the released TrajViT program in plain PyTorch, under its parameter names.

Written anew after the paper (§3.2) and the behaviour of github.com/RAIVNLab/trajvit; the models
that stand on them are in `encoder_torch`.

Shape letters: b videos or other batches, t frames, n images of h x w, y x x cells of a label
grid, m trajectories, s tokens, c coordinates, d channels, l rows of a sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from trajvit_jax.models.settings import EncoderSettings, ResNetSettings

MAX_FRAMES = 16  # rows of the learned frame positions; longer clips interpolate them


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalization."""

    def __init__(self, cin: int, cout: int, size: int, stride: int):
        super().__init__()
        self.convolution = nn.Conv2d(cin, cout, size, stride, size // 2, bias=False)
        self.normalization = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalization(self.convolution(x))


class BasicBlock(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        changes = stride != 1 or cin != cout
        self.shortcut = ConvNorm(cin, cout, 1, stride) if changes else nn.Identity()
        self.layer = nn.ModuleList([ConvNorm(cin, cout, 3, stride), ConvNorm(cout, cout, 3, 1)])

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.layer
        return F.relu(second(F.relu(first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """Feature pyramid at 1/4, 1/8, 1/16 and 1/32 of the input.

    Raises:
      ValueError: blocks other than basic ones.
    """

    def __init__(self, settings: ResNetSettings):
        super().__init__()
        if settings.block != "basic":
            raise ValueError(f"only basic blocks are written in torch, got {settings.block!r}")
        self.embedder = nn.ModuleDict({"embedder": ConvNorm(3, settings.stem, 7, 2)})
        stages, cin = nn.ModuleList(), settings.stem
        for index, (width, depth) in enumerate(zip(settings.widths, settings.depths, strict=True)):
            blocks = [BasicBlock(cin, width, 2 if index else 1)]
            blocks += [BasicBlock(width, width, 1) for _ in range(depth - 1)]
            stages.append(nn.ModuleDict({"layers": nn.Sequential(*blocks)}))
            cin = width
        self.encoder = nn.ModuleDict({"stages": stages})

    def forward(self, frames: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.embedder["embedder"](frames)), 3, 2, 1)
        stages = []
        for stage in self.encoder["stages"]:
            x = stage["layers"](x)
            stages.append(x)
        return stages


class FrameTokenizer(nn.Module):
    """The layers that make one feature map of a frame; `TrajViTTorch` runs them in stages."""

    def __init__(self, settings: ResNetSettings, width: int):
        super().__init__()
        self.resnet = ResNet(settings)
        self.linear_layers = nn.ModuleList([nn.Linear(cin, width) for cin in settings.widths])
        self.layer_norm = nn.LayerNorm(width)

    def feature_map(self, stages: list[Tensor], grid: tuple[int, int]) -> Float[Tensor, "n y x d"]:
        """Sum of the stages, projected, normalized (one LayerNorm for all) and upsampled."""
        total = None
        for stage, linear in zip(stages, self.linear_layers, strict=True):
            x = self.layer_norm(linear(stage.permute(0, 2, 3, 1)))
            # Resampling to the same size would copy the largest stage for nothing.
            if x.shape[1:3] != grid:
                x = F.interpolate(x.permute(0, 3, 1, 2), grid, mode="bilinear")
                x = x.permute(0, 2, 3, 1)
            total = x if total is None else total + x
        return total


class Rotary(nn.Module):
    """Turns interleaved pairs in the first half of every head by the row's position."""

    def __init__(self, head: int):
        super().__init__()
        dims = head // 2
        self.register_buffer("freqs", 10_000.0 ** (-torch.arange(0, dims, 2) / dims))

    def forward(self, x: Float[Tensor, "m heads l d"]) -> Tensor:
        pairs = len(self.freqs)
        angle = torch.arange(x.shape[2], device=x.device)[:, None] * self.freqs
        even, odd = x[..., : 2 * pairs].unflatten(-1, (pairs, 2)).unbind(-1)
        sine, cosine = angle.sin(), angle.cos()
        turned = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1)
        return torch.cat([turned.flatten(-2), x[..., 2 * pairs :]], -1)


class PerceiverAttention(nn.Module):
    def __init__(self, width: int, heads: int, *, rotary: bool):
        super().__init__()
        self.heads = heads
        self.norm_media, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.rotary_emb = Rotary(width // heads) if rotary else nn.Identity()

    def forward(self, latent: Tensor, media: Tensor, mask: Tensor) -> Tensor:
        """latent [m, 1, d], media [m, t, d], mask [m, 1, 1, 1 + t]: the latent's update."""
        latent = self.norm_latents(latent)
        keys = torch.cat([latent, self.norm_media(media)], 1)
        q = self.to_q(latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.to_kv(keys).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # The query stands at position 0, as its own key does: no turn. Frame t is at t + 1.
        out = F.scaled_dot_product_attention(q, self.rotary_emb(k), v, mask)
        return self.to_out(out.transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """A learned latent reads a trajectory's frames; no feed-forward."""

    def __init__(self, width: int, heads: int, depth: int, *, rotary: bool):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, width))
        self.media_pos_emb = None if rotary else nn.Parameter(torch.randn(MAX_FRAMES, width))
        layers = [PerceiverAttention(width, heads, rotary=rotary) for _ in range(depth)]
        self.layers = nn.ModuleList([nn.ModuleList([layer]) for layer in layers])
        self.norm = nn.LayerNorm(width)

    def positions(self, frames: int) -> Float[Tensor, "t d"]:
        table = self.media_pos_emb
        if frames <= len(table):
            return table[:frames]
        return F.interpolate(table.T[None], frames, mode="linear")[0].T

    def forward(
        self, media: Float[Tensor, "b m t d"], present: Bool[Tensor, "b m t"]
    ) -> Float[Tensor, "b m d"]:
        b, m, t, d = media.shape
        if self.media_pos_emb is not None:
            media = media + self.positions(t)
        # The latent's own key is always seen.
        mask = F.pad(present, (1, 0), value=True).reshape(b * m, 1, 1, 1 + t)
        media, latent = media.reshape(b * m, t, d), self.latents.expand(b * m, -1, -1)
        for (layer,) in self.layers:
            latent = latent + layer(latent, media, mask)
        return self.norm(latent).reshape(b, m, d)


class PositionEncoder(nn.Module):
    """Reads a trajectory's coordinates over the frames."""

    def __init__(self, width: int, heads: int, depth: int, *, rotary: bool):
        super().__init__()
        self.motion_token_mapper = Resampler(width, heads, depth, rotary=rotary)
        frequencies = 10_000.0 ** (-torch.arange(width) / width)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def embed(self, coordinates: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        """Each coordinate d/c times, at frequencies that fall over the whole width."""
        repeats = len(self.frequencies) // coordinates.shape[-1]
        angle = coordinates.repeat_interleave(repeats, -1) * self.frequencies
        return torch.stack([angle[..., ::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)


class EncoderLayer(nn.Module):
    """Pre-LayerNorm transformer layer with fused attention."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        width, eps = settings.width, settings.layer_norm_eps
        self.heads = settings.heads
        self.layernorm_before = nn.LayerNorm(width, eps)
        projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {
                "attention": nn.ModuleDict(projections),
                "output": nn.ModuleDict({"dense": nn.Linear(width, width)}),
            }
        )
        self.layernorm_after = nn.LayerNorm(width, eps)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, settings.mlp)})
        self.output = nn.ModuleDict({"dense": nn.Linear(settings.mlp, width)})

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [b, s, d], mask [b, 1, 1, s] of the keys that are seen."""
        y, projections = self.layernorm_before(x), self.attention["attention"]
        q, k, v = (
            projections[name](y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        y = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        x = x + self.attention["output"]["dense"](y)
        y = F.gelu(self.intermediate["dense"](self.layernorm_after(x)))
        return x + self.output["dense"](y)


class Encoder(nn.Module):
    """All layers, `passes` times; without norm, positions or CLS."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        self.passes = settings.passes
        self.layer = nn.ModuleList([EncoderLayer(settings) for _ in range(settings.depth)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for _ in range(self.passes):
            for layer in self.layer:
                x = layer(x, mask)
        return x


def final_norm(settings: EncoderSettings) -> nn.Module:
    return nn.LayerNorm(settings.width) if settings.final_norm else nn.Identity()


def masks_of(ids: Integer[Tensor, "b t y x"]) -> Bool[Tensor, "b t n y x"]:
    """One mask for each id up to the batch's largest; that of id 0 is empty."""
    numbers = torch.arange(int(ids.max()) + 1, device=ids.device)
    masks = ids[:, :, None] == numbers[:, None, None]
    masks[:, :, 0] = False
    return masks


def centres(masks: Bool[Tensor, "*b y x"]) -> Float[Tensor, "*b 2"]:
    """Mean (row, column) / grid size; (-1, -1) for empty masks."""
    rows, columns = masks.sum(-1).float(), masks.sum(-2).float()
    area = rows.sum(-1).clamp(min=1)
    means = [
        line @ torch.arange(line.shape[-1], device=line.device).float() / area / line.shape[-1]
        for line in (rows, columns)
    ]
    return torch.stack(means, -1).masked_fill((rows.sum(-1) == 0)[..., None], -1.0)


def boxes(masks: Bool[Tensor, "*b y x"]) -> Float[Tensor, "*b 4"]:
    """Least and greatest (row, column) / grid size; (1, 1, -1/y, -1/x) for empty masks."""
    least, greatest = [], []
    for line in (masks.any(-1), masks.any(-2)):
        size = line.shape[-1]
        cells = torch.arange(size, device=line.device)
        least.append(torch.where(line, cells, size).amin(-1) / size)
        greatest.append(torch.where(line, cells, -1).amax(-1) / size)
    return torch.stack(least + greatest, -1)

"""What a checkpoint was taken for, in words: sizes, what was assumed, what to look at again."""

from __future__ import annotations

import re
from collections.abc import Collection

from trajvit_jax.convert.kinds import KINDS, TEXT_SIDE, Choices, Layout, recognize
from trajvit_jax.models.settings import ModelSettings


def describe(settings: ModelSettings, layout: Layout) -> list[str]:
    """The sizes and switches of what a checkpoint holds, for a person to check."""
    lines, encoder, text, own = [], settings.encoder, settings.text, settings.trajvit
    if layout.kind in ("trajvit", "resnet"):
        widths = ", ".join(map(str, own.resnet.widths))
        blocks = ", ".join(map(str, own.resnet.depths))
        lines.append(f"  ResNet: {own.resnet.block} blocks {blocks} of widths {widths}")
    if layout.kind == "trajvit":
        frames = own.resampler.frame_positions
        why = "there is a table of them" if frames == "learned" else "there is no table of them"
        lines.append(f"  trajectories: {own.position}, {frames} frames ({why})")
    if layout.kind in ("vit", "vit3d"):
        lines.append(
            f"  tubelets: {settings.vit3d.tubelet}x{settings.vit3d.patch}x{settings.vit3d.patch} "
            f"of {settings.frames} frames of {settings.image_size} px"
        )
    if layout.kind in ("trajvit", "vit", "vit3d"):
        lines.append(
            f"  video encoder: width {encoder.width}, {encoder.heads} heads, "
            f"{encoder.depth} layers, run {encoder.passes}x"
        )
    if layout.kind == "bert" or layout.whole:
        lines.append(
            f"  text encoder: width {text.width}, {text.heads} heads, "
            f"{text.layers_run or text.depth} of {text.depth} layers run"
        )
    return lines


def assumed(
    settings: ModelSettings, layout: Layout, choices: Choices, found: Collection[str]
) -> list[str]:
    """What neither the arrays nor `choices` tell; each with the option that tells it.

    Args:
      settings: of the model.
      layout: how the checkpoint's names are built.
      choices: those that were made are not assumed.
      found: names of its arrays.
    """
    encoder, text = settings.encoder, settings.text
    own = settings.trajvit
    values = {
        "heads": f"{(text if layout.kind == 'bert' else encoder).heads} heads",
        "text_heads": f"{text.heads} heads of the text side",
        "boxes": own.position,
        "encoder_passes": f"encoder run {encoder.passes}x",
        "image_size": f"{settings.image_size} px",
    }
    lines = [
        f"{values[name]} ({_option(name)})"
        for name in readable(layout, found)
        if getattr(choices, name) is None
    ]
    if layout.kind == "trajvit":
        lines.append("mean under masks of all stages (trained with resnet_pool='sum', no roi_size)")
    return lines


def notes(
    layout: Layout, choices: Choices, found: Collection[str], used: Collection[str]
) -> list[str]:
    """What a person should look at again: choices without effect, a part of something known.

    Args:
      layout: how the checkpoint was read.
      choices: as they were made.
      found: names of its arrays.
      used: those that were used.
    """
    lines, read = [], readable(layout, found)
    idle = [name for name in vars(choices) if getattr(choices, name) is not None]
    idle = [_option(name) for name in idle if name not in read]
    if idle:
        lines.append(f"no effect on this {layout.kind}: {', '.join(idle)}")
    whole = recognize(found)
    if whole.kind != layout.kind:
        what = KINDS[whole.kind].what
        line = f"this is the checkpoint of a {what}, of which --kind={layout.kind} reads a part"
        own = re.compile(re.escape(whole.prefix) + f"(?:{KINDS[whole.kind].unused})")
        idle = [name for name in used if own.match(name)]
        if idle:
            line += f"; {len(idle)} arrays of it are ones that a {what} has and never reads"
        lines.append(f"{line}; leave --kind out to read it as that")
    return lines


def readable(layout: Layout, found: Collection[str]) -> list[str]:
    """Names of the choices that tell something of such a checkpoint."""
    names = list(KINDS[layout.kind].choices)
    if f"{layout.prefix}vit2d.embeddings.position_embeddings" in found and "image_size" in names:
        names.remove("image_size")  # it is read off that
    return names + ["text_heads"] * layout.whole


def is_unused(name: str, layout: Layout, settings: ModelSettings) -> bool:
    """Whether the program that an array comes from keeps it without reading it."""
    own = name.removeprefix(layout.prefix)
    if name.startswith(layout.prefix) and re.match(KINDS[layout.kind].unused, own):
        return True
    if not layout.whole:
        return False
    rest = name.removeprefix(layout.root)
    if rest.startswith("itm_head.") or rest == f"{TEXT_SIDE}embeddings.position_ids":
        return True
    layer = re.match(rf"{re.escape(TEXT_SIDE)}encoder\.layer\.(\d+)\.", rest)
    return bool(layer) and int(layer[1]) >= (settings.text.layers_run or settings.text.depth)


def _option(choice: str) -> str:
    return "--" + choice.removeprefix("encoder_").replace("_", "-")

"""The datasets that the command knows."""

from __future__ import annotations

from tokenization.annotations.activitynet import ACTIVITYNET
from tokenization.annotations.ava import AVA
from tokenization.annotations.charades import CHARADES, CHARADES_STA
from tokenization.annotations.coco import COCO
from tokenization.annotations.didemo import DIDEMO
from tokenization.annotations.imagenet import IMAGENET
from tokenization.annotations.kinetics import KINETICS
from tokenization.annotations.msrvtt import MSRVTT, MSVD
from tokenization.annotations.pairs import CC, DATACOMP
from tokenization.annotations.panda70m import PANDA70M
from tokenization.annotations.something import SSV2
from tokenization.annotations.ucf101 import UCF101
from tokenization.annotations.vatex import VATEX
from tokenization.annotations.youcook2 import YOUCOOK2

DATASETS = (
    PANDA70M,
    MSRVTT,
    MSVD,
    ACTIVITYNET,
    VATEX,
    CHARADES,
    CHARADES_STA,
    YOUCOOK2,
    DIDEMO,
    KINETICS,
    SSV2,
    UCF101,
    AVA,
    DATACOMP,
    CC,
    COCO,
    IMAGENET,
)

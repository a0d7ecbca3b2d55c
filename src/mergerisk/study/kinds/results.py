"""Stages by what their results read as; at run time all are the same, so that planning imports no PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.study.stage import StageOf

if TYPE_CHECKING:
    import torch

    from mergerisk.merging.material import Tensors
    from mergerisk.models import Head, State
    from mergerisk.tasks import Task

    TaskStage = StageOf[Task]
    HeadStage = StageOf[Head]
    ModelStage = StageOf[State]
    PartsStage = StageOf[Tensors]
    ArrayStage = StageOf[torch.Tensor]
else:
    TaskStage = HeadStage = ModelStage = PartsStage = ArrayStage = StageOf

"""Heads trained on the base encoder, then frozen, as CLIP's text heads are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.models.core.classifier import Head
from mergerisk.models.inside.features import extract_features

if TYPE_CHECKING:
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.tasks.task import Task


def linear_probe(encoder: Encoder, task: Task, *, regularization: float = 1.0, seed: int = 0) -> Head:
    """Multinomial logistic regression on the encoder's features of the training split.

    Args:
        encoder: usually the pretrained base.
        task: its ``train`` split is used.
        regularization: scikit-learn's C: the inverse strength of the L2 penalty, on standardised features.
        seed: of an encoder that draws, and of solvers that shuffle; L-BFGS, used here, is deterministic.

    Returns:
        The head, acting on raw (not standardised) features.

    Raises:
        UserError: the task has no training images, or the encoder is of another precision than they are.
    """
    from sklearn.linear_model import LogisticRegression

    train = task.training_split("a linear probe")
    features = extract_features(encoder, train.images, seed=seed).double().numpy()
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    solver = LogisticRegression(C=regularization, max_iter=2000, random_state=seed)
    solver.fit((features - mean) / std, train.labels.numpy())
    classes = len(task.class_names)
    weight, bias = torch.zeros(classes, encoder.width), torch.full((classes,), -1e4)
    rows, offsets = solver.coef_, solver.intercept_
    if len(solver.classes_) == 2:  # scikit-learn keeps one row for two classes
        rows, offsets = [-rows[0] / 2, rows[0] / 2], [-offsets[0] / 2, offsets[0] / 2]
    for label, row, offset in zip(solver.classes_, rows, offsets, strict=True):
        # The standardisation is folded into the layer; a class without training images keeps its -1e4.
        weight[label] = torch.from_numpy(row / std).float()
        bias[label] = float(offset - (row / std) @ mean)
    return Head(weight, bias, class_names=task.class_names)

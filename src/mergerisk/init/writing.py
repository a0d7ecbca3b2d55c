"""Study and audit files, with a word on every field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.init.roles import Roles

_HEADS = {
    "checkpoint": "the classifier of the expert on these classes",
    "zero_shot": "from the class names, through the base's text tower",
    "linear_probe": "trained on images that are not attacked",
}


def audit_text(roles: Roles) -> str:
    """An audit of what is released, or a choice between ways to merge it."""
    released = (
        f"merged: {_said(roles.merged)}   # what is going to be released\n"
        "# candidates: [ties, tsv_m]   # what could be released instead: mergerisk list merging\n"
        if roles.merged
        else "candidates: [weight_averaging, task_arithmetic, ties]   # ways to merge: mergerisk list merging\n"
        "# merged: FOLDER   # what is going to be released, once there is a merge\n"
    )
    return (
        "# mergerisk validate FILE checks all of it in seconds; mergerisk audit FILE gives the verdict.\n"
        f"base: {_said(roles.base)}   # public: what all were made from\n"
        "ingredients:   # public, too; one with the name of images is the expert on these\n"
        f"{_lines(roles.ingredients)}"
        f"{released}"
        f"images:   # labelled, a folder for each class; they are attacked\n{_lines(roles.images)}"
        f"heads: {{from: {roles.heads}}}   # {_HEADS[roles.heads]}\n"
        "\n"
        "scenarios: [ingredients, pretrained]   # who attacks; besides: outsider, other_architecture, merged\n"
        "attacks: [mi_fgsm, di_fgsm]   # mergerisk list attacks\n"
        "budgets: {epsilon: [1/255, 2/255, 4/255, 8/255]}   # how far pixels may be changed\n"
        "images_per_task: 200   # more make intervals narrower\n"
        "\n"
        "# When it must not be released: the command then exits with 3.\n"
        "fail_if:\n"
        "  - asr > 70% at 4/255   # under the worst attacker\n"
        "# defenses: [{defense: jpeg, of: merged}]   # what may lower the risk: mergerisk list defenses\n"
    )


def study_text(tasks: Mapping[str, str]) -> str:
    """A study of merging methods, on data of one's own or on the built-in suite.

    Args:
        tasks: name → path of labelled images; nothing for the built-in suite.
    """
    listed = "".join(f"  - {{task: {_said(path)}, name: {_said(name)}}}\n" for name, path in tasks.items())
    own = (
        f"tasks:   # labelled images, a folder for each class\n{listed}"
        if tasks
        else "tasks: [digits, letters, textures]   # the built-in suite; or folders, .npz, Parquet, the hub\n"
    )
    return (
        "# mergerisk validate FILE checks it in seconds, mergerisk plan FILE says what it takes,\n"
        "# mergerisk run FILE runs it, and resumes after anything.\n"
        "schema_version: 1\n"
        "name: study\n"
        "backbone: starter-vit   # or a folder, org/name on the hub, timm:NAME: mergerisk list backbones\n"
        f"{own}"
        "experts: {fine_tune: {epochs: 8, learning_rate: 0.0004}}   # or files: {TASK: MODEL}\n"
        "merging: [weight_averaging, task_arithmetic, ties]   # mergerisk list merging\n"
        "attacks: [mi_fgsm, di_fgsm]   # mergerisk list attacks\n"
        "surrogates: [expert, pretrained]   # what attackers hold: mergerisk list surrogates\n"
        "budgets: {epsilon: [2/255, 4/255, 8/255], steps: 10}   # how far pixels may be changed\n"
        "images_per_task: 100   # more make intervals narrower\n"
        "seeds: [0]   # several: everything again, trained anew\n"
        "# causes: all   # why it transfers: mergerisk list causes\n"
        "# defenses: [{defense: jpeg, of: ties}]   # what lowers the risk: mergerisk list defenses\n"
    )


def _lines(entries: Mapping[str, str]) -> str:
    return "".join(f"  {_said(name)}: {_said(path)}\n" for name, path in entries.items())


def _said(text: str) -> str:
    """A text as YAML writes it in a line."""
    written: str = yaml.safe_dump(text, allow_unicode=True, width=float("inf"), default_style=None)
    return written.removesuffix("\n").removesuffix("...").removesuffix("\n")

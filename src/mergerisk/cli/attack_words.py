"""What ``mergerisk attack`` prints."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from mergerisk.text_tables import table_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def describe_attack(folder: Path, summary: Mapping[str, Any]) -> str:
    """What an attack on a folder of images did, in a table and a few lines.

    Args:
        folder: where the adversarial images are.
        summary: what ``attack.json`` holds.
    """
    unlabelled = summary["labels"] == "clean predictions"
    first = summary["model"]
    targeted = summary["attack"].get("targeted", False)
    rows = []
    for rates in summary["rates"]:
        attacked, both = rates["model"] == first, rates["images_both_correct"]
        cells = {
            "model": f"{rates['model']} (attacked)" if attacked else rates["model"],
            # What the attacked model says was taken for the truth.
            "clean agreement" if unlabelled else "clean accuracy": _percent(
                None if unlabelled and attacked else rates["clean_accuracy"]
            ),
            "ASR (95 %) of": _with_interval(rates, "asr", both),
            "asr_all (95 %) of": _with_interval(rates, "asr_all", rates["images"]),
            "relative ASR": "–" if attacked or rates["relative_asr"] is None else f"{rates['relative_asr']:.3f}",
        }
        if targeted:
            cells["targeted success (95 %) of"] = _with_interval(rates, "targeted_success", both)
        rows.append(cells)
    table = table_of(rows)
    return "\n".join([table, "", *_remarks(summary), f"adversarial images, attack.csv, attack.json: {folder}"])


def _remarks(summary: Mapping[str, Any]) -> list[str]:
    """What one must know to read the table."""
    lines = list(summary["remarks"])
    if summary["labels"] == "clean predictions":
        lines.append(
            f"no labels given: what {summary['model']} says of the clean images was attacked, right or wrong"
        )
    changed, attacked = summary["saving"], summary["attacked"]
    lines.append(
        f"counted is what was saved: rounding to 8 bits changed {changed['predictions_changed']} of {attacked} "
        f"predictions ({changed['wrong_before']} wrong before, {changed['wrong_after']} after)"
    )
    stuck = summary["zero_gradient_images"]
    if stuck:
        lines.append(f"{stuck} of {attacked} images met gradients of exactly zero: try --set loss=margin")
    by_reason = defaultdict(list)
    for item in summary["skipped"]:
        by_reason[item["reason"]].append(item["file"])
    for reason, files in by_reason.items():
        more = f" and {len(files) - _EXAMPLES} more" if files[_EXAMPLES:] else ""
        lines.append(f"left out ({reason}): {', '.join(files[:_EXAMPLES])}{more}")
    return lines


_EXAMPLES = 3
"""Files named one by one, of those left out for one reason."""


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _with_interval(rates: Mapping[str, Any], rate: str, of: int) -> str:
    if rates[rate] is None:
        return "–"
    low, high = (f"{100 * rates[f'{rate}_{end}']:.1f}" for end in ("low", "high"))
    return f"{rates[rate]:.1%} ({low} to {high}) of {of}"

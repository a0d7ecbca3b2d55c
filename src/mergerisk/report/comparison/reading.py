"""What a comparison says, no surer than its intervals and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.report.formatting import listing, plural

if TYPE_CHECKING:
    from mergerisk.report.comparison.comparing import Comparison

LEVEL = 0.05


def accuracy_by_model(found: Comparison) -> dict[str, float]:
    """Mean difference of clean accuracy over tasks and seeds."""
    return {
        str(model): float(rows["difference"].mean()) for model, rows in found.accuracy.groupby("model", sort=False)
    }


def moved(found: Comparison) -> tuple[int, int]:
    """Settings whose ASR rises and falls from A to B, by McNemar's test adjusted over all settings."""
    sure = found.settings[found.settings["p_adjusted"].astype(float) < LEVEL]
    rises = int((sure["asr_difference"] > 0).sum())
    return rises, len(sure) - rises


def conclusion(found: Comparison) -> list[str]:
    """The comparison in a few sentences."""
    count = len(found.settings)
    a, b = found.unmatched
    shared = plural(count, "setting is", "settings are")
    sentences = [
        f"{shared} in both runs; {plural(a, 'is', 'are')} in A alone, {plural(b, 'is', 'are')} in B alone."
    ]
    if not count:
        return [*sentences, "There is nothing to compare."]
    paired = int(found.settings["paired"].sum())
    if paired:
        tasks = listing(list(found.paired_tasks), limit=8)
        sentences.append(
            f"The images are the same for {tasks}: {plural(paired, 'setting')} compared image by image."
        )
        if found.settings.loc[found.settings["paired"].astype(bool), "asr_difference"].eq(0).all():
            sentences.append("Not one of them has another ASR.")
        else:
            rises, falls = moved(found)
            sentences.append(
                f"By McNemar’s test, adjusted over all, the ASR is higher in B in {rises} and lower in {falls}."
            )
    if paired < count:
        sentences.append(
            f"The images differ for {plural(count - paired, 'setting')}: those are compared as rates only."
        )
    apart = [
        str(row["target"]) for row in found.targets.to_dict("records") if row["asr_low"] > 0 or row["asr_high"] < 0
    ]
    sentences.append(
        f"The mean ASR differs, by its interval, for {listing(apart, limit=8)}."
        if apart
        else "For no target does the interval of the mean difference in ASR leave out 0."
    )
    return sentences

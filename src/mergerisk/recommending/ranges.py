"""Where hyper-parameters are searched unless a study says otherwise.

Ranges hold the catalogue's default, and the values that papers and public code tune them over; λ is searched on a
logarithmic scale. Methods and defenses that are not named, as those of installed packages, are taken as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.study.fields.search import Between, OneOf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.study.fields.search import Values


def _between(low: float, high: float) -> Between:
    return Between(low=low, high=high)


def _scaling(low: float, high: float) -> Between:
    return Between(low=low, high=high, log=True)


METHODS: Mapping[str, Mapping[str, Values]] = {
    "task_arithmetic": {"scaling": _scaling(0.05, 1.0)},
    "ties": {"density": _between(0.05, 1.0), "scaling": _scaling(0.1, 2.0)},
    "dare": {"drop_rate": _between(0.1, 0.9), "scaling": _scaling(0.05, 1.0)},
    "della": {"drop_rate": _between(0.1, 0.9), "scaling": _scaling(0.1, 2.0)},
    "wudi": {"learning_rate": _scaling(1e-6, 1e-2), "scaling": _scaling(0.1, 1.0)},
    "doge_ta": {"density": _between(0.1, 1.0), "scaling": _scaling(0.02, 5.0)},
    "tsv_m": {"scaling": _scaling(0.2, 2.0)},
    "iso_c": {"scaling": _scaling(0.2, 2.0)},
    "iso_cts": {"common": _between(0.5, 1.0), "scaling": _scaling(0.2, 2.0)},
    "consensus": {"threshold": _between(0.2, 0.8), "scaling": _scaling(0.05, 1.0)},
    "pcb": {"density": _between(0.02, 0.5), "scaling": _scaling(0.3, 3.0)},
    "breadcrumbs": {
        "density": _between(0.1, 0.9),
        "drop_top": _between(0.0, 0.1),
        "scaling": _scaling(0.05, 1.0),
    },
    "slerp": {"t": _between(0.2, 0.8)},
}
"""Method → hyper-parameter → its values."""

DEFENSES: Mapping[str, Mapping[str, Values]] = {
    "bit_depth": {"bits": OneOf(values=(3, 4, 5))},
    "jpeg": {"quality": OneOf(values=(40, 60, 75, 90))},
    "median": {"size": OneOf(values=(2, 3))},
    "resize_pad": {},
    "smoothing": {"sigma": OneOf(values=(0.05, 0.1)), "votes": OneOf(values=(10,))},
    "pubdef": {"epochs": OneOf(values=(1, 2))},
    "fare": {"epochs": OneOf(values=(1,))},
    "adversarial_distillation": {"epochs": OneOf(values=(1,))},
    "decorrelate": {"epochs": OneOf(values=(1,))},
    "tecoa": {"epochs": OneOf(values=(1,))},
    "trades": {"epochs": OneOf(values=(1,))},
    "sam": {"epochs": OneOf(values=(1,))},
    "gradient_penalty": {"epochs": OneOf(values=(1,))},
}
"""Defense → hyper-parameter → its values; those that train are trained shortly."""

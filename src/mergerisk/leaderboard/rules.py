"""What the leaderboard asks of an entry, in words: the page and docs/leaderboard.md say the same."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """One rule: what it is about, and what it says."""

    title: str
    text: str


RULES = (
    Rule(
        "Threat model",
        "An attacker holds one of the models that a table names, and uses it for all tasks and attacks; the "
        "merge itself is nobody’s. They may change an image by the budget and no more, know each image’s true "
        "class, and see nothing that the merge answers. What is ranked is the worst of them: ASR, the share "
        "of images fooled among those that attacked and attacking model both get right.",
    ),
    Rule(
        "Adaptive attackers",
        "A defended merge is ranked only if somebody who knows the defense attacked it too: a surrogate aware "
        "or adaptive of its study. Their attacks count like all others.",
    ),
    Rule(
        "Sanity checks",
        "A defended merge is ranked only if every check of its study passed: a white box is no weaker than "
        "transfer, queries or more steps, noise fails, gradients are there, all images fall in the end. Where "
        "one failed or is missing, the merge stands below the table, with the check’s name.",
    ),
    Rule(
        "No attacked image is read",
        "Test images are attacked, and methods that read data are given held-out ones, none of which is among "
        "them: calibration: held_out. Where a study says otherwise its entry is refused. What a merge made "
        "elsewhere has read cannot be told from its study; it is marked.",
    ),
    Rule(
        "What is ranked together",
        "One table holds the methods that were attacked on the same terms: the same tasks by the key of their "
        "content, the same images of them, the same budgets and norm, attacks with the same hyper-parameters, "
        "the same attackers, as many seeds. Other terms make another table, and ranks of two tables say "
        "nothing of each other. Bases may differ, and can be chosen.",
    ),
    Rule(
        "Ranks",
        "Ranks are by ASR at the table’s middle budget. A rank interval holds the ranks that a method may "
        "have: every two are compared on the same images (bootstrap), corrected for all pairs of the table "
        "(Holm), and the ends count those told apart from it as safer and as riskier. With 95% confidence all "
        "intervals hold the true ranks at once, for other images of these tasks.",
    ),
    Rule(
        "How an entry is checked",
        "Every figure is recomputed from the outcomes of each image: rates with their denominators, "
        "intervals, ε50, clean accuracy, standings, claims, prices, an audit’s readings and gates. An entry "
        "is refused if one differs from what it states, if outcomes do not fit the study file (tasks, "
        "attacks, budgets, steps, images, targets), contradict clean.parquet or each other, or if a change is "
        "larger than its budget. Nothing is computed anew by models: that outcomes are what the named models "
        "said has to be believed, or the study run again.",
    ),
)
"""In the order in which they are told."""

OUTSIDE = "Interventions, base and experts are measured and not ranked: nobody would release them as a merge."

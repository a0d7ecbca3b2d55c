"""What models are called in sentences and headings: the study's own labels are names, not words."""

from __future__ import annotations

_ATTACKERS = {
    "expert": "the task’s own expert",
    "pretrained": "the pretrained base",
    "other_expert": "another task’s expert",
    "outsider": "an outsider’s model",
    "other_architecture": "a model of another architecture",
    "ensemble": "an ensemble of models",
    "averaged": "an average of the attacker’s checkpoints",
    "unseen": "a model that no defense has seen",
    "own_merge": "the attacker’s own merge",
    "merged": "the merged model",  # what an audit calls the one to be released, unless it is given a name
}

_MODELS = {
    "pretrained": "pretrained base",
    "expert": "task’s own expert",
    "experts_ensemble": "all experts, averaged",
    "experts_routed": "experts, routed by task",
    "merged": "merged model",
}

_KNOWING = {
    "aware": "what is public, defended as",
    "adaptive": "the task’s own expert, through what defends",
}


def holder(name: str) -> str:
    """Whose model an attack is made on, as a noun: ``the pretrained base``; other names stay as they are."""
    kind, slash, task = name.partition("/")
    if kind == "expert" and slash and task:
        return f"the expert of {task}"
    if slash and kind in _KNOWING:
        return f"{_KNOWING[kind]} {task}"
    if slash and kind == "own_merge":
        return f"the attacker’s own {task}"
    return _ATTACKERS.get(name, name)


def model_name(name: str) -> str:
    """What a row of a table is about: ingredients and lines of reference in words, a merge by its name."""
    return _MODELS.get(name, name)


def change(epsilon: float, norm: str) -> str:
    """A budget in words a reader of pictures knows: ``a change of at most 4 of 255 grey levels at any pixel``.

    Args:
        epsilon: in [0,1] pixel units.
        norm: ``linf`` or ``l2``, what it bounds.
    """
    if norm == "linf":
        return f"a change of at most {255 * epsilon:.3g} of 255 grey levels at any pixel"
    return f"a change of an L2 length of at most {255 * epsilon:.3g}/255"

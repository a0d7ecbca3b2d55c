"""Checking: what a model says in its own library's way, beside what mergerisk has it say, and why they differ."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

"""Diagnostics that may explain transfer: surrogate, target, images → values per image or per pair of models."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

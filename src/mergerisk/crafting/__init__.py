"""Crafting: one model and a folder of images → a folder of adversarial images, and what became of each."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

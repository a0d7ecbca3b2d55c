"""Rates and outcomes → intervals, ε50, and warnings about curves."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

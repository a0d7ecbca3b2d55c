"""Defenses: a merged model or its inputs → a hardened classifier."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

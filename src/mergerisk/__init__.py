"""mergerisk: how easily transferred adversarial examples fool merged vision models."""

import logging

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

# What a run logs goes where whoever imports this sends it, and nowhere without.
logging.getLogger("mergerisk").addHandler(logging.NullHandler())

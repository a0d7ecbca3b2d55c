"""mergerisk: how easily transferred adversarial examples fool merged vision models."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

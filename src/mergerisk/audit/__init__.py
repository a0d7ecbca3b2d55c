"""Is a merged model safe to release? Labelled images + what an attacker could get → verdict, gates."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

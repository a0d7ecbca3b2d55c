"""Key → artefact, on disk, crash-safe; knows nothing of what it holds."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

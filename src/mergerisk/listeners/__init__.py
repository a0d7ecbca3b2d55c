"""Who is told how a run goes, besides the person who waits for it: its log file, trackers, and anybody's own."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

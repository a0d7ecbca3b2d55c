"""A finished study → one self-contained HTML page, and the same figures as JSON.

`Summary` is the only input. Small pure functions turn it into what the page shows; the templates only lay
out.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

"""What is said of an image instead of a class."""

from __future__ import annotations

REJECTED = -2
"""Said of an image that is taken for an attack. Attackers have not fooled who says so; of a clean image it is no
right answer either."""

"""Deliberately naive reference implementations, written from the equations and kept apart from the package.

Nothing here imports ``mergerisk``: an error in the package cannot hide in its own reference.
"""

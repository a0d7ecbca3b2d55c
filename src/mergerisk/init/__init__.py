"""A first study or audit file for what lies in a folder: what is there, what it is, and the file that says so."""

from __future__ import annotations

from mergerisk.init.finding import Found, FoundImages, FoundModel, find
from mergerisk.init.roles import Roles, assign
from mergerisk.init.writing import audit_text, study_text

__all__ = ["Found", "FoundImages", "FoundModel", "Roles", "assign", "audit_text", "find", "study_text"]

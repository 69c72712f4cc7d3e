"""What goes wrong with a local mesh."""

from __future__ import annotations


class MeshProblem(Exception):
    """The mesh cannot start or go on; the message is for people: what, where, and what to do."""

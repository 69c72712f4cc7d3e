"""The ``bookmesh`` command."""

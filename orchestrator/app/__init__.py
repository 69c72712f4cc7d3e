"""The use cases: submit, look, watch, and the worker that carries purchases out."""

"""Prints Envoy's configuration, filled in from the environment: ``python -m deploy.envoy >envoy-filled.yaml``."""

from __future__ import annotations

import sys

from deploy.envoy.render import render
from deploy.envoy.settings import EdgeSettings
from mesh.settings import load

sys.stdout.write(render(load(EdgeSettings)))

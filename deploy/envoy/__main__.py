"""Prints Envoy's configuration, filled in from the environment: ``python -m deploy.envoy >envoy-filled.yaml``.

With TLS to the gateways, ``python -m deploy.envoy secrets`` writes the files of ``BOOKMESH_EDGE_SECRETS_DIR``.
"""

from __future__ import annotations

import sys

from deploy.envoy.render import render, render_secrets
from deploy.envoy.settings import EdgeSettings
from mesh.settings import load

settings = load(EdgeSettings)
match sys.argv[1:]:
    case []:
        sys.stdout.write(render(settings))
    case ["secrets"] if settings.edge_secrets_dir is not None:
        for name, content in render_secrets(settings).items():
            (settings.edge_secrets_dir / name).write_text(content)
    case ["secrets"]:
        sys.exit("BOOKMESH_EDGE_SECRETS_DIR: not set, so there is nowhere to write to")
    case _:
        sys.exit("usage: python -m deploy.envoy [secrets]")

"""The edge: one Envoy configuration for the local mesh and for a deployment."""

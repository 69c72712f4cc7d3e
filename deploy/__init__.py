"""What runs the services: Envoy's configuration, and the mesh of one machine."""

"""gRPC as the mesh uses it: servers, channels, errors, deadlines, validation."""

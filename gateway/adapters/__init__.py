"""The gateway's ports, made of gRPC and of JSON Web Tokens."""

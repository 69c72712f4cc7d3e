"""The customer's gRPC API: who you are, what you may do, is it valid; then the orchestrator."""

"""What the gateway tells people."""

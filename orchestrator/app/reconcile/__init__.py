"""Our books against the payment provider's and the sellers'."""

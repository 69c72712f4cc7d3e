"""The way to a seller: who they are, how they are called, what they may answer."""

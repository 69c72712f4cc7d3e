"""Tokens, by which customers, services of the house and operators say who they are."""

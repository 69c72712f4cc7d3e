"""Owns purchases and money: takes each purchase from request to final status."""

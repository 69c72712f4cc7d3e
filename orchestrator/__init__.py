"""Owns purchases and their money: from the submission to the last cent."""

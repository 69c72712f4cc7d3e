"""Whom to ask for a book when there are thousands of sellers, and how good that choice is.

Pure: no I/O, time and randomness are passed in. Sellers are rows of numpy columns; who turns seller ids into rows,
keeps the columns on disk and asks the sellers is the caller.
"""

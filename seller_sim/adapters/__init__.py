"""Where the simulation meets files, SQLite and the network."""

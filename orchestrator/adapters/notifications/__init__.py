"""How customers are told: PostgreSQL keeps whom and what, HTTPS and SMTP carry it."""

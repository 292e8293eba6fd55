"""Tickets: a backlog of work that a ticket loop does, one ticket after the other or several at once."""

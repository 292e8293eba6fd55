"""Programs that run under a guard, so that their whole tree ends with them."""

"""The only code that touches the files which the runner and the world share."""

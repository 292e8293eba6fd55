"""pi elsewhere: how a launcher starts it on another machine or in a box, and what runs there beside it."""

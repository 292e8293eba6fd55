"""Acts. Carries out what the core asks for and turns every outcome into the core's next input."""

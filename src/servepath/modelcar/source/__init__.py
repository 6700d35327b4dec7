"""Where models come from, and whether they are usable: directories and the Hub."""

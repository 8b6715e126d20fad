"""Ten times the load that there is capacity for: whoever is refused is told the truth, and the workers stay busy."""

"""Language models: loading and asking them, prices, reading of what they answer. Knows no session."""

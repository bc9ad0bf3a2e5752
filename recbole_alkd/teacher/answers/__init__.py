"""Reading the answer of an LLM: rankings of candidates out of any text."""

"""Reading the answer of an LLM: rankings and rules out of any text."""

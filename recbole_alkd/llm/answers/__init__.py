"""Reading the answer of an LLM, whatever it was asked."""

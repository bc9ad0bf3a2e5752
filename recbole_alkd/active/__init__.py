"""The selection engine: which instances the LLM is asked about.

Pure functions on arrays (difficulty, gain, max_min, capped, sampling) and, in ``policy``,
one file for each policy.
"""

"""Runs of several processes, on one machine or several: what they share (``group``), where they are
(``places``), how they are started and ended (``launch``, ``member``)."""

"""Settings: typed, read once, checked before anything is trained or paid. Nothing in them is ever
evaluated."""

"""Task files: reading, checking and writing them. Making tasks is `recall.synth`'s work."""

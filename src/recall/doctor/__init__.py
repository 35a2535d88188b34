"""What can be known to go wrong before a run starts: each check is one line, ok or what is wrong with it."""

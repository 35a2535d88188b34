"""Shows the report on a set of tasks, as `recall.synth.report` makes it, in a terminal and as a page."""

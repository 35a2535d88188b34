"""Tasks by the thousand without a language model: worlds, tools, questions and their certified reference programs."""

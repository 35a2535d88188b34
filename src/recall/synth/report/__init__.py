"""What a set of tasks is like, measured from its rows: sizes, answers, shortcuts, replays, overlaps, and gates."""

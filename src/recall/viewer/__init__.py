"""What a person looks at: the live view of a run, its report, the picture of its curves. It changes nothing."""

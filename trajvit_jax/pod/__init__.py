"""Many processes as one run: who is there, which of them this is, and what all of them do."""

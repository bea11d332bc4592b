"""What a run keeps in its workdir and says while it goes."""

"""What a run leaves on disk, in formats that field tools open. No Ray, no pixel arithmetic."""

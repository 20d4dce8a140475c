"""What the driver process does around the workflow."""

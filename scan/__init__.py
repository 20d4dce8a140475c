"""The nouns of a scan: plan, records, errors, credits. No Ray, no pixels, no files."""

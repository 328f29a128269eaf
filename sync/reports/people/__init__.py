"""Reports about people: search, explanation, troubleshooting, and why people failed or cannot be mailed."""

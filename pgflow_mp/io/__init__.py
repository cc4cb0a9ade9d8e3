"""Data in: what people have as the raw JSON elements of a run, batch by batch, in constant memory."""

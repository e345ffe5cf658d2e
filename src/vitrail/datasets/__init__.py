"""Images: photos, folders, data sets by name, generated tasks, and the random transforms of training."""

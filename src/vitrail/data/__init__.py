"""Images from disk: photos, folders, and the random transforms of training."""

"""What everything stands on: types, errors, registries, hooks, files, processes."""

"""The keeper: the process that containers belong to, so that they outlive the engine."""

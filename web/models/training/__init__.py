"""Training of the small chat model that is embedded in PyWebLLM."""

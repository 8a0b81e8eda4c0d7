"""What serves the models: the page of the demo and of Spaces, and the handler of endpoints."""

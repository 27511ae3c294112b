"""How the conditions of experiments are brought about."""

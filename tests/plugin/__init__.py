"""The plugin as its users meet it: sessions of pytest, run by pytester, over small repositories."""
